"""Check that each label means the same class in a model, its config and its annotation files.

MMDetection numbers the classes of a data set in the order of ``categories`` in its annotation file. The config lists
the categories to use, but their order in the config does not matter. Therefore the training file decides what a label
means. In a file with another order, labels mean other classes, and MMDetection raises no error. This module compares
names, which :mod:`dtn_det.datasets.configs.classes` gathers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import ClassNameError

Evidence = Literal["training file", "checkpoint", "config"]

_SHOWN = 10
_NAMES_LEFT_OUT = "names_left_out"


@dataclass(frozen=True)
class NamedSet:
    """The classes of one data set of a config, or of an evaluator's file.

    Attributes:
        where: Key of the data set in the config, such as ``'train_dataloader.dataset'``.
        wanted: Names that the config lists, in the config's order. If there are none, the names built into the type of
            the data set.
        categories: Names in the file, in the order in which MMDetection numbers them.
        heads: True if the heads of the model must have as many classes as this set; False for panoptic sets, whose
            things and stuff are counted separately.
    """

    where: str
    file: str
    wanted: tuple[str, ...]
    categories: tuple[str, ...]
    heads: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order in which MMDetection numbers them."""
        wanted = set(self.wanted)
        return tuple(name for name in self.categories if name in wanted)

    def __str__(self) -> str:
        return f"{self.file} ({self.where})"


@dataclass(frozen=True)
class ModelClasses:
    """The classes of a model according to its config and checkpoint.

    Attributes:
        heads: Number of classes of each head, by keys of the config such as ``'model.bbox_head.num_classes'``.
        checkpoint: Path of the checkpoint; empty before training.
        names: Class names in the checkpoint, in the order of the training config; None if the checkpoint has none.
        in_label_order: True if ``names`` are known to be in the order of the labels, as written by this project's
            training.
    """

    heads: Mapping[str, int] = field(default_factory=dict)
    checkpoint: str = ""
    names: tuple[str, ...] | None = None
    in_label_order: bool = False


@dataclass(frozen=True)
class LabelNames:
    """The class name of each label of a model.

    Attributes:
        evidence: The kind of evidence that decided the names.
        source: The file or checkpoint from which they were read.
        differing: Evaluated sets in which MMDetection would number the classes in another order.
        remarks: A remark if names in the checkpoint were ignored because their number differs from the number of
            classes.
    """

    names: tuple[str, ...]
    evidence: Evidence
    source: str
    differing: tuple[NamedSet, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def places(self, categories: Sequence[str]) -> tuple[int, ...] | None:
        """Return the index of each label's name among the categories; None if the categories are in the labels' order.

        Args:
            categories: The same names in any order.
        """
        if tuple(categories) == self.names:
            return None
        return tuple(list(categories).index(name) for name in self.names)


def labels_in_training(training: Sequence[NamedSet], others: Sequence[NamedSet], model: ModelClasses) -> LabelNames:
    """Decide what the labels of a model will mean after its training.

    Args:
        training: Data sets on which the model is trained, at least one.
        others: Data sets and evaluators' files on which the model is validated.

    Raises:
        ClassNameError: A file lacks a name of the config. A name occurs twice. A head has another number of classes.
            The labels of two sets mean different classes.
    """
    first = training[0]
    for one in (*training, *others):
        check_set(one, model.heads)
        _check_same_names(first, one)
    _check_heads(first, model)
    for one in (*training[1:], *others):
        if one.labels != first.labels:
            raise ClassNameError(
                f"expected the categories in {one} in the order of those in {first}, by which MMDetection numbers the "
                f"classes, got {_order(first.labels, one.labels)}: write the categories of both files in one order"
            )
    return LabelNames(first.labels, "training file", str(first))


def labels_in_evaluation(tested: Sequence[NamedSet], training: Sequence[NamedSet], model: ModelClasses) -> LabelNames:
    """Decide what the labels of a trained model mean.

    The first order in this list that is known is the order of the labels:

    * the order of the names in the checkpoint, if these are known to be in the order of the labels,
    * the order of the training file, if it is on this machine,
    * the order of the tested file, provided that the names in the checkpoint, or else in the config, have the same
      order.

    If the orders in the last case differ, nothing shows which one is right, so an error is raised. Names in the
    checkpoint are ignored if their number differs from the heads' number of classes.

    Args:
        tested: Data sets and evaluators' files on which the model is evaluated, at least one.
        training: Data sets on which the config trained the model, if their files are on this machine.
        model: The heads of the model and the names in its checkpoint.

    Raises:
        ClassNameError: A file lacks a name of the config. A name occurs twice. A head has another number of classes.
            The checkpoint has other names. The order of the labels cannot be known.
    """
    first = tested[0]
    for one in tested:
        check_set(one, model.heads)
        _check_same_names(first, one)
    _check_heads(first, model)
    remarks: tuple[Remark, ...] = ()
    if model.names is not None and model.heads and first.heads and len(model.names) != len(first.wanted):
        remarks = (names_left_out(model.names, len(first.wanted), model.checkpoint),)
        model = ModelClasses(model.heads, model.checkpoint)
    if model.names is not None:
        _check_checkpoint(first, model)
    # A training set with another number of classes comes from a base config, and the model was not trained on it.
    training = [one for one in training if len(set(one.wanted)) == len(first.wanted)]
    for one in training:
        check_set(one)
        _check_same_names(first, one)
    names, evidence, source = _decided(first, training, model)
    return LabelNames(names, evidence, source, tuple(one for one in tested if one.labels != names), remarks)


def names_left_out(names: Sequence[str], outputs: int, where: str) -> Remark:
    """Return a remark that class names in a file were ignored, because the model has another number of classes.

    Args:
        names: The names in the file.
        outputs: Number of classes of the model's head.
        where: The file.
    """
    named = agreeing(len(names), "{name of a class was|names of classes were}")
    what = f"{named} left out: the head has {outputs} classes, which they do not describe"
    return Remark(_NAMES_LEFT_OUT, what, where, len(names), tuple(names[:3]))


def facts_of_names(remarks: Sequence[Remark]) -> dict[str, str]:
    """Return the entry of a model's manifest about ignored class names; empty if no remark is about them."""
    left = [remark for remark in remarks if remark.kind == _NAMES_LEFT_OUT]
    return {"class names": f"{left[0].count} in the file, left out"} if left else {}


def _decided(
    first: NamedSet, training: Sequence[NamedSet], model: ModelClasses
) -> tuple[tuple[str, ...], Evidence, str]:
    """Return the names of the labels, the kind of evidence for them, and the source of this evidence."""
    if model.names is not None and model.in_label_order:
        return model.names, "checkpoint", model.checkpoint
    if training:
        own = training[0]
        for one in training[1:]:
            if one.labels != own.labels:
                raise ClassNameError(
                    f"expected the training files of the config in one order of categories, got {own} and {one}, in "
                    f"which {_order(own.labels, one.labels)}: name the one that the model was trained on"
                )
        if model.names is not None and model.names not in (own.wanted, own.labels):
            raise ClassNameError(
                f"expected the classes of {model.checkpoint} in the order of the config, {_shown(own.wanted)}, or of "
                f"{own}, {_shown(own.labels)}, got {_shown(model.names)}: it was trained with another config or file. "
                f"If it was trained on this file, list the classes of {own.where} as the checkpoint has them; else "
                f"name its training file by its whole path with --cfg-options {own.where}.ann_file=FILE"
            )
        return own.labels, "training file", str(own)
    said: tuple[tuple[str, ...], Evidence, str]
    said = first.wanted, "config", "the config"
    if model.names is not None:
        said = model.names, "checkpoint", model.checkpoint
    names, evidence, source = said
    if names != first.labels:
        raise ClassNameError(
            f"expected the categories in {first} in the order of the classes of {source}, got "
            f"{_order(names, first.labels)}: MMDetection numbers classes by the order of the training file, which is "
            "not at hand; name it by its whole path (its categories suffice) with --cfg-options "
            "train_dataloader.dataset.ann_file=FILE"
        )
    return names, evidence, source


def differing_order(found: LabelNames) -> ClassNameError | None:
    """Return an error if the labels of an evaluated set have another order; None if all orders agree.

    Programs that match labels by name need not raise the error.
    """
    if not found.differing:
        return None
    one = found.differing[0]
    return ClassNameError(
        f"expected the categories in {one} in the order of the labels of the model, which is that of {found.source}, "
        f"got {_order(found.names, one.labels)}: MMDetection would take each for another. Write the categories of the "
        "file in that order, or evaluate with dtn-det mpc, which goes by names"
    )


def order_remark(found: LabelNames) -> Remark:
    """Return a remark that labels were matched by name, because a file has its categories in another order."""
    one = found.differing[0]
    count = sum(name != other for name, other in zip(found.names, one.labels, strict=True))
    stand = agreeing(count, "{category stands|categories stand}")
    what = (
        f"{stand} in another order than the labels of the model, known from {found.source}; labels were matched by name"
    )
    return Remark("class_order", what, one.file, count, one.labels[:3])


def check_set(one: NamedSet, heads: Mapping[str, int] | None = None) -> None:
    """Check that a file has each name that the config lists exactly once.

    Args:
        heads: Numbers of classes in the config by their keys, for the message.

    Raises:
        ClassNameError: A name is missing, or occurs more than once.
    """
    twice = _twice(one.wanted)
    if twice:
        raise ClassNameError(
            f"expected each class of {one.where} once in the config, got {_shown(twice)} more than once: mend the "
            "config's metainfo.classes"
        )
    missing = [name for name in one.wanted if name not in one.categories]
    if missing:
        raise ClassNameError(
            f"expected the {len(one.wanted)} classes of the config among the categories in {one}, got "
            f"{len(one.categories)} without {_shown(missing)}{_near(missing, one.categories)}: "
            + (
                f"to train on them, set metainfo.classes of {one.where} to the names in the file, "
                f"{_shown(one.categories)}, and "
                + (" ".join(f"{key}={len(one.categories)}" for key in heads or {}) or "num_classes of the model")
                + "; for a model that is trained already, rename them in the file to its classes and add the other "
                "classes, which need no objects but their place in the order"
                if len(missing) == len(one.wanted)
                else "rename or add them in the file, where a category needs no objects but its place in the order; "
                "for a model that is not trained yet, metainfo.classes of all data sets can be changed instead"
            )
        )
    twice = [name for name in _twice(one.categories) if name in one.wanted]
    if twice:
        raise ClassNameError(
            f"expected each class once among the categories in {one}, got {_shown(twice)} more than once, by which "
            "every later label would mean another class: leave one of each in the file"
        )


def _check_same_names(first: NamedSet, one: NamedSet) -> None:
    if set(first.wanted) != set(one.wanted):
        raise ClassNameError(
            f"expected the same classes in {first.where} and {one.where}, got {_difference(first, one)}: list the same "
            "names in metainfo.classes of both"
        )


def _difference(first: NamedSet, one: NamedSet) -> str:
    lacking = [name for name in first.wanted if name not in one.wanted]
    more = [name for name in one.wanted if name not in first.wanted]
    alone = ((lacking, first.where), (more, one.where))
    said = [f"{_shown(names)} in {where} alone" for names, where in alone if names]
    return " and ".join(said) + _near(lacking, more)


def _check_heads(first: NamedSet, model: ModelClasses) -> None:
    number = len(first.wanted)
    wrong = {key: value for key, value in model.heads.items() if value != number}
    if wrong and first.heads:
        got = ", ".join(f"{key}={value}" for key, value in wrong.items())
        options = " ".join(f"{key}={number}" for key in wrong)
        raise ClassNameError(
            f"expected heads of {number} classes, those of {first.where} ({_shown(first.wanted)}), got {got}: add "
            f"--cfg-options {options}, or list the model's classes as metainfo.classes of the data sets"
        )


def _check_checkpoint(first: NamedSet, model: ModelClasses) -> None:
    names = model.names or ()
    if Counter(names) == Counter(first.wanted):
        return
    lacking = [name for name in first.wanted if name not in names]
    more = [name for name in names if name not in first.wanted]
    raise ClassNameError(
        f"expected {model.checkpoint} to be trained on the classes of {first.where}, {_shown(first.wanted)}, got "
        f"{len(names)}: {_shown(names)}{_near(lacking, more)}: name the checkpoint's own config, or give the classes "
        "its names, in metainfo.classes and in the annotation file"
    )


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _order(wanted: Sequence[str], found: Sequence[str]) -> str:
    """Describe the places at which two orders of the same names differ."""
    places = [place for place, (one, other) in enumerate(zip(wanted, found, strict=True)) if one != other]
    shown = [f"{found[place]!r} for {wanted[place]!r}" for place in places[:_SHOWN]]
    return f"{', '.join(shown)}{', ...' if len(places) > _SHOWN else ''} in place {places[0]} and later"


def _near(missing: Sequence[str], there: Sequence[str]) -> str:
    """Describe which missing names are present in a form that differs only in blanks, case or dashes."""
    reasons: Sequence[tuple[str, Callable[[str], str]]] = (
        ("blanks", lambda name: " ".join(name.split())),
        ("case", str.casefold),
        ("case and blanks", lambda name: " ".join(name.split()).casefold()),
        ("dashes and blanks", lambda name: name.casefold().replace("-", "").replace("_", "").replace(" ", "")),
    )
    said = []
    for name in missing:
        for reason, form in reasons:
            close = [other for other in there if form(other) == form(name)]
            if close:
                said.append(f"{close[0]!r}, which differs from {name!r} in {reason}")
                break
    return f" (there is {'; '.join(said[:_SHOWN])})" if said else ""


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
