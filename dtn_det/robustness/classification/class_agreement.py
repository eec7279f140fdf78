"""Check that a model has as many classes as the data and, if it names its classes, that the names agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dtn_det.datasets.class_names import facts_of_names, names_left_out
from dtn_det.datasets.folders.class_folders import in_order
from dtn_det.datasets.folders.image_files import listed, nested, num_inner_classes, one_folder_per_class, quoted
from dtn_det.datasets.folders.label_maps import (
    SUBSETS,
    has_english_names,
    names_of_two_classes,
    names_to_mend,
    naming,
    natural_order,
    plain_name,
)
from dtn_det.datasets.folders.recognise import Recognised
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import Remark, agreeing, counted
from dtn_det.errors import InputError
from dtn_det.robustness.classification.models.classifier import Classifier

_IMAGENET = 1000


@dataclass(frozen=True)
class ClassSet:
    """The classes of the data, with which the classes of each model must agree.

    Attributes:
        images: The images, and the numbers and names of their classes.
        clean: Folder of clean images, if one was given for a tree of corrupted images. The class folders of ``clean``
            decide how the classes are numbered, and may include classes that the tree lacks.
    """

    found: Recognised
    images: LabelledImages
    clean: Path | None = None

    @property
    def number(self) -> int:
        """Number of classes that a model must have: the data's, or ImageNet's if the data are a subset of ImageNet."""
        return _IMAGENET if self.images.labels.places else self.images.num_classes

    def fault(self, number: int, name: str) -> str:
        """Return the error message for a model whose number of classes is not that of the data."""
        if english := self.english_names(number, name):
            return english
        labels, folders = self.images.labels, len(self.images.labels.numbers)
        kind = naming(labels.numbers)
        how = {
            **{key: f"of which the logits of the classes of {title} count" for key, title in SUBSETS.items()},
            "labels": "numbered by the labels of the set",
            "imagenet": "numbered as ImageNet's, for they are named by its wnids or by numbers",
            "folder": "numbered by the folders' names",
            "sorted": "numbered by the text order of the folders' names",
            "natural": "numbered by the natural order of the folders' names",
        }[labels.classes]
        advice = "name a model of these classes"
        extra = sorted({*labels.numbers} - {*self.found.folders})
        if self.clean is not None and extra and number == len({*labels.numbers} & {*self.found.folders}):
            return (
                f"expected the classes of {self.found.root} alone in {self.clean}, among whose folders they are "
                f"numbered ({how}), got {counted(len(extra), 'folder')} more ({quoted(extra)}) where the model "
                f"{name!r} has {number:,} classes: name a folder of clean images of these classes with --clean"
            )
        if (
            labels.classes != "imagenet"
            and number > self.number
            and self.found.kind == "class_folders"
            and not self.found.inner
        ):
            advice += f", or make an empty folder in {self.found.root} for each class that has no images there"
        if labels.classes != "imagenet" and self.found.inner:
            inner = self.found.inner
            advice = (
                f"the images of {counted(len(nested(inner)), 'inner folder')} such as {nested(inner)[0]} count as the "
                f"class folders around them; {one_folder_per_class(inner)}"
                + ("" if number == num_inner_classes(inner, self.found.folders) else f", or {advice}")
            )
        if labels.classes in ("imagenet", *SUBSETS) and number == folders:
            advice = f"take --classes folder, which numbers the {folders:,} folders by their names"
        elif labels.classes != "imagenet" and number == _IMAGENET and kind == "wnids":
            advice = "take --classes imagenet, which numbers the folders by ImageNet's wnids"
        return (
            f"expected a model of {self.number:,} classes for {self.found.title} in {self.found.root} ({how}), got "
            f"{number:,} classes in {name!r}: {advice}"
        )

    def english_names(self, number: int, name: str) -> str:
        """Return the error message for folders with the English names of ImageNet's classes; empty without an error.

        There is an error only if the model has ImageNet's 1,000 classes and the user did not choose how folders are
        numbered.
        """
        labels = self.images.labels
        folders = sorted(labels.numbers)
        if number != _IMAGENET or labels.classes != "folder" or not has_english_names(folders):
            return ""
        twice = [f"{folder!r} may be {' or '.join(wnids)}" for folder, wnids in names_of_two_classes(folders).items()]
        by_order = (
            ", or, for a model that was trained on these folders, take --classes sorted (torchvision, mmpretrain) or "
            "natural (timm)"
        )
        return (
            f"expected wnids such as n02012849 as the names of the folders in {self.found.root}, for {name!r} has "
            f"1,000 classes as ImageNet, got the English names of ImageNet's classes ({quoted(folders, 3)}), whose "
            "order is not that of its classes: rename the folders to wnids, which timm.data.ImageNetInfo lists with "
            f"these names{f' ({listed(twice)})' if twice else ''}" + (by_order if self.number == number else "")
        )


def check_number(model: Classifier, classes: ClassSet, side: int) -> None:
    """Check that a model has as many classes as the data.

    Args:
        model: The model. If its number of classes is unknown, its logits for one black image are counted.

    Raises:
        ValueError: The model has another number of classes.
    """
    number = model.num_classes if model.num_classes is not None else _count_logits(model, side)
    if number is not None and number != classes.number:
        raise InputError(classes.fault(number, model.name))


def align(model: Classifier, classes: ClassSet) -> tuple[Classifier, tuple[Remark, ...]]:
    """Put a model's logits into the order of the data's classes, which are matched by name.

    Names are equal if they differ only in case, in blanks, dashes and underscores, or in how Unicode encodes a letter.
    Names of different kinds (words, numbers or wnids) cannot be compared, so the order of the logits is kept. The order
    is also kept, with a remark, if the classes of the data are numbered by ``sorted`` or ``natural`` (see
    :data:`dtn_det.datasets.folders.label_maps.CLASSES`). If the number of names is not the number of logits, the names
    are left out. The logits of a model without names are assumed to be in the order of the class folders in training.

    Returns:
        The model, with reordered logits if the orders differ, and remarks about what was decided.

    Raises:
        ValueError: The names of the model's classes are not the names in the data. Or the folders have the English
            names of ImageNet's classes, and the model's classes are not in alphabetical order.
    """
    if classes.images.labels.places:
        return _restrict(model, classes), ()
    theirs, ours = model.class_names, classes.images.labels.names
    if theirs and len(theirs) != len(ours):
        # `check_number` has compared the numbers of logits and classes, so only the names are wrong: leave them out.
        left_out = names_left_out(theirs, len(ours), model.name)
        training = {**model.training, **facts_of_names((left_out,))}
        aligned, told = align(replace(model, class_names=(), training=training), classes)
        return aligned, (left_out, *told)
    by_words = bool(theirs) and naming(theirs) == "names"
    if not by_words and (fault := classes.english_names(classes.number, model.name)):
        raise InputError(fault)
    if not theirs:
        return _align_order(model, classes)
    if {naming([name]) for name in theirs} != {naming([name]) for name in ours}:
        return model, ()
    their_names, our_names = [plain_name(name) for name in theirs], [plain_name(name) for name in ours]
    if len({*our_names}) < len(our_names):
        # Compare the names unchanged, because names of two classes in the data differ only in case or blanks.
        their_names, our_names = list(theirs), list(ours)
    if their_names == our_names:
        return model, ()
    if classes.images.labels.classes in ("sorted", "natural"):
        return model, _contradicted(model, classes, their_names, our_names)
    missing = [name for name, plain in zip(ours, our_names, strict=True) if plain not in their_names]
    if missing and classes.images.labels.classes == "labels":
        # The data name classes by numbers, and the model may have other names for them, so keep the order.
        return model, ()
    if missing or len({*their_names}) < len(their_names):
        more = [name for name, plain in zip(theirs, their_names, strict=True) if plain not in our_names]
        some_agree = len(missing) < len(ours) and len(missing) == len(more)
        by_order = (
            "rename the folders, or number them by the text order of their names, whatever they are, with --classes "
            "sorted"
        )
        raise InputError(
            f"expected the classes of {model.name!r}, as its checkpoint names them, in {classes.found.root}, got "
            f"{quoted(missing)} in place of {quoted(more)}: {names_to_mend(missing, more) if some_agree else by_order}"
        )
    order = [their_names.index(name) for name in our_names]
    moved = [name for number, name in enumerate(ours) if order[number] != number]
    remark = Remark(
        "classes_by_name",
        agreeing(len(moved), "{class has another number|classes have other numbers}")
        + f" in {model.name} than in the folders: its answers were taken by name",
        str(classes.found.root),
        len(moved),
        tuple(moved),
    )
    return replace(model, forward=_Reordered(model, order, len(order))), (remark,)


def _restrict(model: Classifier, classes: ClassSet) -> Classifier:
    """Keep only the logits of the data's classes, which are a part of the model's 1,000 classes."""
    labels = classes.images.labels
    by_name = set(labels.names) <= {*model.class_names} and len({*model.class_names}) == classes.number
    order = [model.class_names.index(name) for name in labels.names] if by_name else labels.places
    return replace(
        model,
        forward=_Reordered(model, order, classes.number),
        num_classes=len(order),
        class_names=(),
        protocol={**model.protocol, "logits": f"those of the {len(order)} classes of {SUBSETS[labels.classes]}"},
    )


def _contradicted(
    model: Classifier, classes: ClassSet, theirs: Sequence[str], ours: Sequence[str]
) -> tuple[Remark, ...]:
    """Return a remark if the user's numbering of folders contradicts the names that the model gives its classes."""
    if not {*theirs} & {*ours}:
        return ()
    labels = classes.images.labels
    moved = [number for number, name in enumerate(ours) if theirs[number] != name]
    first = moved[0]
    what = agreeing(len(moved), "{folder counts|folders count}") + (
        f" as a class of another name of {model.name} by --classes {labels.classes}, such as {labels.names[first]!r} "
        f"as {model.class_names[first]!r}"
    )
    examples = tuple(labels.names[number] for number in moved)
    return (Remark("names_contradicted", what, str(classes.found.root), len(moved), examples),)


def _align_order(model: Classifier, classes: ClassSet) -> tuple[Classifier, tuple[Remark, ...]]:
    """Reorder the logits of a model that names no classes, from the order of its training to the order of the data."""
    labels, where = classes.images.labels, str(classes.found.root)
    by_text, natural = sorted(labels.numbers), natural_order(labels.numbers)
    if by_text == natural or naming(labels.numbers) != "names":
        return model, ()
    if labels.classes in ("sorted", "natural"):
        if model.class_order in ("", labels.classes):
            return model, ()
        what = f"{model.name} was trained on folders in the {in_order(model.class_order, by_text, natural)}"
        return model, (Remark("order_of_training", f"model, {what}; --classes {model.class_order} takes it", where),)
    if model.class_order == "sorted":
        return model, ()
    text_order, other = (in_order(order, by_text, natural) for order in ("sorted", "natural"))
    if model.class_order == "":
        what = (
            f"orders of classes are possible for {model.name}, which does not tell its own: taken was the {text_order} "
            f"(torchvision, mmpretrain; --classes sorted), and not the {other} (timm; --classes natural)"
        )
        training = {**model.training, "class order": "text order, for the checkpoint tells none"}
        return replace(model, training=training), (Remark("order_in_doubt", what, where, 2),)
    remark = Remark(
        "order_of_training",
        f"classes of {model.name}, a checkpoint of timm's training, were numbered by the {other}",
        where,
        len(natural),
    )
    order = [natural.index(name) for name in labels.names]
    return (
        replace(
            model,
            forward=_Reordered(model, order, len(order)),
            protocol={**model.protocol, "class_order": "natural"},
            training={**model.training, "class order": "natural order, that of timm's training"},
        ),
        (remark,),
    )


class _Reordered:
    """Calls a model, and returns its logits in another order, or only some of its logits.

    Args:
        order: Indices of the logits to return, in their new order.
        size: Number of logits that the model must have.
    """

    def __init__(self, model: Classifier, order: Sequence[int], size: int) -> None:
        self.model, self.order, self.size = model, torch.tensor(order), size

    def __call__(self, images: Tensor) -> Tensor:
        logits = self.model.forward(images)
        # An output that is not a tensor of logits is reported by `check_logits`.
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != self.size:
            return logits
        return logits.index_select(1, self.order.to(logits.device))


def _count_logits(model: Classifier, side: int) -> int | None:
    """Count the logits of a model for a black image; None if the model fails, which its evaluation will report."""
    height, width = model.view.of(side).size or (side, side)
    device = next((weights.device for weights in model.network.parameters()), None)
    try:
        with torch.inference_mode():
            logits = model.forward(torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device))
    # Third-party model code may raise anything.
    except (Exception, SystemExit):
        return None
    return int(logits.shape[1]) if isinstance(logits, Tensor) and logits.ndim == 2 else None
