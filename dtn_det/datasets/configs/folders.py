"""Check before a run that the class folders named by a config match the classes of its classifier.

mmpretrain numbers the classes by the sorted names of their folders. A missing or renamed folder therefore gives wrong
labels without any error, or an index error minutes later.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtn_det.datasets.class_names import names_left_out
from dtn_det.datasets.configs.classes import checkpoint_classes
from dtn_det.datasets.configs.settings import (
    check_image_lists,
    class_folder,
    class_names,
    evaluators,
    innermost_settings,
    numbers_itself,
    own_class_names,
)
from dtn_det.datasets.folders.image_files import (
    SUFFIXES,
    OtherFiles,
    inner_folders,
    is_litter,
    listed,
    look,
    mask_remarks,
    nested,
    num_inner_classes,
    one_folder_per_class,
    pooled_remarks,
    quoted,
    walk_images,
)
from dtn_det.datasets.folders.label_maps import names_to_mend, plain_name
from dtn_det.datasets.folders.recognise import READ_BY_CLASS, recognise
from dtn_det.datasets.remarks import Remark, agreeing, counted
from dtn_det.errors import ClassNameError, InputError

_NAMES_SHOWN = 5
# Extensions of the images that mmpretrain's CustomDataset reads.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif")
# The largest number of images that are checked, because listing all of them may take minutes.
_MOST_FILES = 100_000


def check_class_folders(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> tuple[Remark, ...]:
    """Check the class folders of data sets against the model and against each other.

    Data sets without labels and data sets of other kinds are skipped. If the config does not state the model's number
    of classes, nothing is compared with the model. Lists of images and labels are checked by
    :func:`dtn_det.datasets.configs.settings.check_image_lists`.

    Args:
        dataloaders: Keys such as ``"train_dataloader"``.

    Returns:
        Remarks on what mmpretrain leaves out of the folders, on inner folders, and on images that may be masks.

    Raises:
        InputError: The number of folders differs from the number of the model's classes. The folders of two dataloaders
            have different names, or the folders are in another order than ``classes`` in the config. A hidden folder
            would become a class. A list of images has labels that the model lacks. The k of a top-k accuracy is larger
            than the number of classes.
    """
    numbers = dict(class_numbers(cfg))
    sets = [found for loader in dataloaders for found in _labelled_sets(cfg, loader)]
    _check_same_folders(sets)
    _check_sets(cfg, dataloaders, sets)
    remarks: dict[str, tuple[Remark, ...]] = {}
    for one in sets:
        if one.folder is not None and one.folder not in remarks:
            inner = inner_folders(Path(one.folder), one.folders)
            left_out = _left_out(one.settings, one.folder, one.folders)
            remarks[one.folder] = (*pooled_remarks(inner, one.folder), *left_out)
    check_image_lists(cfg, dataloaders, numbers)
    _check_topk(cfg, dataloaders, numbers)
    return tuple(itertools.chain.from_iterable(remarks.values()))


def folder_fault(cfg: Mapping[str, Any], folder: str) -> str:
    """Return why a config cannot be trained or tested with a folder of class folders.

    Args:
        folder: The folder of class folders, which replaces every such folder of the config.

    Returns:
        The reason in one sentence; empty if the folder fits, or if the config's data sets are not class folders.
    """
    loaders = [key for key in cfg if key.endswith("_dataloader")]
    names = [name for name in _folders(folder) if not is_litter(name)]
    sets = [
        LabelledSet(loader, where, settings, folder, names, class_names(where, settings))
        for loader in loaders
        for where, settings in innermost_settings(cfg, loader)
        if class_folder(settings) is not None
    ]
    try:
        _check_sets(cfg, loaders, sets, "name the folder of its classes")
        if sets:
            _check_topk(cfg, loaders, dict(class_numbers(cfg)))
    except InputError as error:
        return str(error)
    return ""


def _check_sets(
    cfg: Mapping[str, Any],
    dataloaders: Sequence[str],
    sets: Sequence[LabelledSet],
    advice: str = "name the folder of the dataset with --data-root",
) -> None:
    """Check each set's class folders against the model's number of classes and the names in the set's config."""
    numbers = dict(class_numbers(cfg))
    for one in sets:
        if one.folder is None:
            _check_fixed_classes(one, numbers)
            continue
        found = one.folders
        for key, number in {**numbers, **_named_number(one)}.items():
            if len(found) != number:
                inner = inner_folders(Path(one.folder), found)
                if inner:
                    advice = f"{one_folder_per_class(inner)}, or {advice}"
                change = "" if number == num_inner_classes(inner, found) else _change_to(found, cfg, dataloaders, sets)
                pooled = f" with {counted(len(nested(inner)), 'inner folder')} of images" if inner else ""
                raise InputError(
                    f"expected folders of {number} classes ({key}) for {one.loader}, got {len(found)} in "
                    f"{one.folder!r}{_shown(found)}{pooled}: {_other_than_classes(one.folder)}{advice}{change}"
                )
        _check_names(one)


@dataclass(frozen=True)
class LabelledSet:
    """A data set of a config of mmpretrain. The classes are numbered by the folders, or by the type of the data set.

    Attributes:
        loader: Key of its dataloader, such as ``"train_dataloader"``.
        where: Key of the data set in the config, such as ``"train_dataloader.dataset"``.
        folder: The folder with its class folders; None if its type numbers the classes, as CIFAR10 does.
        folders: Names of the class folders, in the order in which mmpretrain numbers them.
        names: Names of its classes from the config or its type; None if the folders name the classes.
    """

    loader: str
    where: str
    settings: Mapping[str, Any]
    folder: str | None
    folders: Sequence[str] = ()
    names: Sequence[str] | None = None


def _labelled_sets(cfg: Mapping[str, Any], loader: str) -> Iterator[LabelledSet]:
    """Yield the data sets of a dataloader that have class folders, or a type that assigns the numbers of classes."""
    for where, settings in innermost_settings(cfg, loader):
        folder = class_folder(settings)
        if folder is None and numbers_itself(settings):
            yield LabelledSet(loader, where, settings, None, (), own_class_names(settings))
        elif folder is not None and os.path.isdir(folder):
            yield LabelledSet(loader, where, settings, folder, _folders(folder), class_names(where, settings))


def _check_same_folders(sets: Sequence[LabelledSet]) -> None:
    """Check that all sets have the same class folders, and that no hidden folder lies beside the class folders."""
    first: LabelledSet | None = None
    for one in sets:
        if one.folder is None:
            continue
        _check_strangers(one.folder, one.folders)
        if first is not None and first.folders != one.folders:
            raise InputError(
                f"expected {one.folder!r} for {one.loader} to have the classes of {first.folder!r} for {first.loader}, "
                f"got {_difference(first.folders, one.folders)}: the sorted names of the folders number the classes, "
                "so they must be the same"
            )
        first = one


def _named_number(one: LabelledSet) -> dict[str, int]:
    """Return how many class names a data set has from the config or its type; empty if the folders give the names.

    The key of the dict is the config key that gives the names.
    """
    if one.names is None:
        return {}
    told = "classes" in (one.settings.get("metainfo") or {}) or one.settings.get("classes") is not None
    what = "classes" if told else f"type={_type_name(one.settings)}"
    return {f"{one.where}.{what}": len(one.names)}


def _check_fixed_classes(one: LabelledSet, numbers: Mapping[str, int]) -> None:
    """Check that a model has an output for each class of a data set whose type numbers them, such as CIFAR10."""
    number = len(one.names or ())
    few = {key: value for key, value in numbers.items() if value < number}
    if few:
        got = ", ".join(f"{key}={value}" for key, value in few.items())
        options = " ".join(f"{key}={number}" for key in few)
        raise InputError(
            f"expected a model of at least {number} classes, those of {_type_name(one.settings)} ({one.where}), got "
            f"{got}: change it with --cfg-options {options}, or name another data set"
        )


def _change_to(
    found: Sequence[str], cfg: Mapping[str, Any], dataloaders: Sequence[str], sets: Sequence[LabelledSet]
) -> str:
    """Return the end of an error message: the options that make a config fit its class folders."""
    if len(found) < 2:
        return ""
    options = [f"{key}={len(found)}" for key in dict(class_numbers(cfg))]
    options += [
        _own_names_off(one.where) for one in sets if one.names is not None and not _same(one.names, one.folders)
    ]
    options += [_first_alone(path) for path, topk in _topks(cfg, dataloaders) if _most(topk) > len(found)]
    return f", or change the config to these classes with --cfg-options {' '.join(options)}"


def _own_names_off(where: str) -> str:
    """Return the option that makes a data set name its classes after its folders."""
    return f"{where}.metainfo.classes=None"


def check_trained_folders(
    cfg: Mapping[str, Any], dataloader: str, checkpoint: str, content: Mapping[str, Any]
) -> tuple[Remark, ...]:
    """Check that mmpretrain numbers class folders as it did in the training of a checkpoint.

    If the class names of folders and checkpoint have nothing in common, for example wnids and words, the check passes.
    If the number of names in the checkpoint is not the model's number of classes, these names are left out.

    Returns:
        A remark if names were left out.

    Raises:
        ClassNameError: Some names are the same, but they are in another order, or other names are missing or added.
    """
    trained, _ = checkpoint_classes(content)
    numbers = set(dict(class_numbers(cfg)).values())
    if trained is not None and len(numbers) == 1 and len(trained) not in numbers:
        return (names_left_out(trained, numbers.pop(), checkpoint),)
    for _, dataset in innermost_settings(cfg, dataloader):
        folder = class_folder(dataset)
        if trained is None or folder is None or not os.path.isdir(folder):
            continue
        found = _folders(folder)
        ours, theirs = [*map(_plain, found)], [*map(_plain, trained)]
        if ours == theirs or not {*ours} & {*theirs}:
            continue
        advice = "evaluate the classes that it was trained on"
        if {*map(plain_name, found)} == {*map(plain_name, trained)}:
            advice += ", or by name with `dtn-det mce`"
        else:
            advice = names_to_mend(
                [name for name, plain in zip(found, ours, strict=True) if plain not in theirs],
                [name for name, plain in zip(trained, theirs, strict=True) if plain not in ours],
            )
        if {*ours} == {*theirs}:
            place = next(number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
            what = f"{found[place]!r} as class {place}, which is {trained[place]!r} there"
        else:
            what = _difference(trained, found)
        raise ClassNameError(
            f"expected the class folders of {folder!r}, which mmpretrain numbers by their sorted names, to be the "
            f"classes in {checkpoint}, got {what}: {advice}"
        )
    return ()


def _check_strangers(folder: str, names: Sequence[str]) -> None:
    """Refuse hidden folders and folders left behind by archivers, because mmpretrain would take them for classes."""
    strangers = [name for name in names if is_litter(name)]
    if strangers:
        raise InputError(
            f"expected nothing but the folders of classes in {folder!r}, got {quoted(strangers)}, which mmpretrain "
            "takes for classes: move them away"
        )


def _check_names(one: LabelledSet) -> None:
    """Check that the names of a set's classes are in the order of its folders.

    If class names and folders have no name in common, for example words and wnids, the check passes.
    """
    if one.names is None or _same(one.names, one.folders):
        return
    names, found = [*map(_plain, one.names)], [*map(_plain, one.folders)]
    if not {*names} & {*found}:
        return
    place = next(number for number, (own, other) in enumerate(zip(names, found, strict=True)) if own != other)
    raise InputError(
        f"expected the classes of {one.where} in the order of the sorted folders of {one.folder!r}, by which "
        f"mmpretrain numbers them, got {one.names[place]!r} as class {place}, which is the folder "
        f"{one.folders[place]!r}: sort `classes`, or leave them out with --cfg-options {_own_names_off(one.where)}"
    )


def _same(names: Sequence[str], found: Sequence[str]) -> bool:
    return [*map(_plain, names)] == [*map(_plain, found)]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _left_out(dataset: Mapping[str, Any], folder: str, names: Sequence[str]) -> Iterator[Remark]:
    """Yield remarks on images that mmpretrain skips because of their extension, and on images that may be masks."""
    extensions = tuple(str(one).lower() for one in dataset.get("extensions", _EXTENSIONS))
    others = OtherFiles()
    walks = (walk_images(folder, f"{name}/", OtherFiles()) for name in names)
    taken = []
    for path in itertools.islice(itertools.chain.from_iterable(walks), _MOST_FILES):
        if path.lower().endswith(extensions):
            taken.append(path)
        else:
            others.add(path)
    yield from mask_remarks(taken, folder)
    if others.count:
        endings = sorted(others.count)
        count = sum(others.count.values())
        yield Remark(
            "not_read_by_mmpretrain",
            agreeing(count, "{image is|images are} passed over by mmpretrain for {its ending|their endings}")
            + f" ({listed(endings)}): add dataset.extensions to "
            f"the config, such as ({', '.join(repr(one) for one in SUFFIXES[:3])}, {endings[0]!r})",
            folder,
            count,
            tuple(others.example[ending] for ending in endings),
            partial=True,
        )


def _other_than_classes(folder: str) -> str:
    """If a folder holds something other than class folders, return what it is and what to do; else an empty string."""
    found = recognise(Path(folder))
    if found.kind == "tiny_imagenet_val":
        return f"these are {found.title}; sort them with tools/prepare_small_data.py tiny-imagenet, or "
    if found.kind in ("empty", "class_folders") or (found.kind == "images" and not look(folder).images):
        return ""
    if found.kind in READ_BY_CLASS:
        return f"these are {found.title}, which `dtn-det mce` evaluates; "
    return f"these are {found.title}; {found.advice()}; or "


def _check_topk(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """Refuse top-k accuracies whose k is larger than the number of classes: mmpretrain would fail after an epoch."""
    for path, topk in _topks(cfg, dataloaders):
        if numbers and _most(topk) > min(numbers.values()):
            raise InputError(
                f"expected {path}.topk of at most {min(numbers.values())}, the number of classes, got {topk}: add "
                f"--cfg-options {_first_alone(path)}"
            )


def _topks(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the config key and the ``topk`` of each evaluator, and of each head that measures accuracy in training."""
    if "train_dataloader" in dataloaders:
        for path, model in _models(cfg):
            head = model.get("head")
            if isinstance(head, Mapping) and head.get("cal_acc") and "topk" in head:
                yield f"{path}.head", head["topk"]
    for loader in dataloaders:
        yield from ((path, metric["topk"]) for path, metric in evaluators(cfg, loader) if "topk" in metric)


def _first_alone(path: str) -> str:
    """Return the option for top-1 accuracy alone, which is a number for evaluators and a list for heads."""
    return f"{path}.topk='[1]'" if path.endswith(".head") else f"{path}.topk=1"


def _most(topk: Any) -> int:
    return max([topk] if isinstance(topk, int) else topk, default=0)


def class_numbers(cfg: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield each key of a classifier's config that holds a number of classes, with its value."""
    yield from _number("data_preprocessor", cfg.get("data_preprocessor"))
    for path, model in _models(cfg):
        yield from _number(path, model)
        yield from _number(f"{path}.head", model.get("head"))
        loss = model["head"].get("loss") if isinstance(model.get("head"), Mapping) else None
        yield from _number(f"{path}.head.loss", loss)
        yield from _number(f"{path}.data_preprocessor", model.get("data_preprocessor"))


def _models(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dotted key and the settings of a config's model, and of each model nested in it (`ConvertedModel`)."""
    path, model = "model", cfg.get("model")
    while isinstance(model, Mapping):
        yield path, model
        path, model = f"{path}.model", model.get("model")


def _number(path: str, settings: Any) -> Iterator[tuple[str, int]]:
    number = settings.get("num_classes") if isinstance(settings, Mapping) else None
    if isinstance(number, int):
        yield f"{path}.num_classes", number


def _type_name(settings: Mapping[str, Any]) -> str:
    kind = settings.get("type")
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder as mmpretrain lists them: sorted, and hidden folders too."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if os.path.isdir(entry.path))


def _shown(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:_NAMES_SHOWN])}{', ...' if len(names) > _NAMES_SHOWN else ''})" if names else ""


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    alike = {name.casefold(): name for name in map(_plain, expected)}
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    written = [name for name in extra if _plain(name).casefold() in alike]
    said = [f"{len(names)} {what}{_shown(names)}" for what, names in (("missing", missing), ("more", extra)) if names]
    hint = f", of which {quoted(written)} differ in case or in the form of their letters alone" if written else ""
    return " and ".join(said) + hint
