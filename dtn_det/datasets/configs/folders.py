"""Whether the class folders that a config names are those of its classifier, before a run starts.

mmpretrain numbers the classes by the sorted names of their folders: a folder too few, or one of another name, gives
wrong labels without a word, or an index error minutes later.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dtn_det.datasets.configs.classes import checkpoint_classes
from dtn_det.datasets.configs.settings import class_folder, innermost_datasets
from dtn_det.datasets.folders.image_files import (
    SUFFIXES,
    OtherFiles,
    is_litter,
    listed,
    look,
    mask_remarks,
    quoted,
    walk_images,
)
from dtn_det.datasets.folders.recognise import READ_BY_CLASS, recognise
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import ClassNameError, InputError

_NAMES_SHOWN = 5
# Of mmpretrain's CustomDataset.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif")
# Images that are looked at: mmpretrain lists all of them itself, which may take minutes.
_MOST_FILES = 100_000


def check_class_folders(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> tuple[Remark, ...]:
    """Check the folders of classes against the model and against each other.

    Datasets without labels or of other kinds are passed over, and so are models that do not say how many classes they
    have; lists of images and labels go through :func:`dtn_det.datasets.configs.folders.check_image_lists`.

    Args:
        cfg: The config.
        dataloaders: Keys such as ``"train_dataloader"``.

    Returns:
        What mmpretrain leaves out of the folders.

    Raises:
        ValueError: The number of folders is not that of the model's classes, or their names are not those of the other
            dataloaders or of ``classes`` in the config, or mmpretrain takes a folder for a class that is none, or a
            list of images has labels that do not fit, or an evaluator looks at more classes than there are.
    """
    numbers = dict(class_numbers(cfg))
    first: tuple[str, str, list[str]] | None = None
    remarks: dict[str, tuple[Remark, ...]] = {}
    for loader, dataset in [(name, dataset) for name in dataloaders for dataset in innermost_datasets(cfg.get(name))]:
        folder = class_folder(dataset)
        if folder is None or not os.path.isdir(folder):
            continue
        found = _folders(folder)
        _check_strangers(folder, found)
        if first is not None and first[2] != found:
            raise InputError(
                f"expected {folder!r} for {loader} to have the classes of {first[1]!r} for {first[0]}, got "
                f"{_difference(first[2], found)}: the sorted names of the folders number the classes, so they must be "
                "the same"
            )
        first = loader, folder, found
        for key, number in numbers.items():
            if len(found) != number:
                options = " ".join(f"{name}={len(found)}" for name in numbers)
                raise InputError(
                    f"expected folders of {number} classes ({key}) for {loader}, got {len(found)} in {folder!r}"
                    f"{_shown(found)}: {_other_than_classes(folder)}name the folder of the dataset with --data-root, "
                    f"or change the model with --cfg-options {options}"
                )
        _check_names(dataset, loader, folder, found)
        if folder not in remarks:
            remarks[folder] = tuple(_left_out(dataset, folder, found))
    check_image_lists(cfg, dataloaders, numbers)
    _check_evaluators(cfg, dataloaders, numbers)
    return tuple(itertools.chain.from_iterable(remarks.values()))


def check_trained_folders(cfg: Mapping[str, Any], dataloader: str, checkpoint: str, content: Mapping[str, Any]) -> None:
    """See that mmpretrain numbers class folders as the data were numbered that a checkpoint was trained on.

    Names that have nothing in common, such as wnids and words, say nothing.

    Args:
        cfg: The config.
        dataloader: Key such as ``"test_dataloader"``.
        checkpoint: Path of the checkpoint.
        content: What it holds.

    Raises:
        ClassNameError: Some names are the same, and their numbers are not, or others are missing.
    """
    trained, _ = checkpoint_classes(content)
    for dataset in innermost_datasets(cfg.get(dataloader)):
        folder = class_folder(dataset)
        if trained is None or folder is None or not os.path.isdir(folder):
            continue
        found = _folders(folder)
        ours, theirs = [*map(_plain, found)], [*map(_plain, trained)]
        if ours == theirs or not {*ours} & {*theirs}:
            continue
        if {*ours} == {*theirs}:
            place = next(number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
            what = f"{found[place]!r} as class {place}, which is {trained[place]!r} there"
        else:
            what = _difference(trained, found)
        raise ClassNameError(
            f"expected the class folders of {folder!r}, which mmpretrain numbers by their sorted names, to be the "
            f"classes in {checkpoint}, got {what}: evaluate the classes that it was trained on, or by name with "
            "`dtn-det mce`"
        )


def _check_strangers(folder: str, names: Sequence[str]) -> None:
    """Hidden folders, and what archivers leave, are classes to mmpretrain, and all later ones get other numbers."""
    strangers = [name for name in names if is_litter(name)]
    if strangers:
        raise InputError(
            f"expected nothing but the folders of classes in {folder!r}, got {quoted(strangers)}, which mmpretrain "
            "takes for classes: move them away"
        )


def _check_names(dataset: Mapping[str, Any], loader: str, folder: str, found: Sequence[str]) -> None:
    """See that ``classes`` in the config, where they are the folders' names, are in the order of the numbers."""
    names = _named_classes(dataset)
    if names is None or {*map(_plain, names)} != {*map(_plain, found)}:
        return
    if [*map(_plain, names)] != [*map(_plain, found)]:
        place = next(
            n for n, (ours, theirs) in enumerate(zip(found, names, strict=True)) if _plain(ours) != _plain(theirs)
        )
        raise InputError(
            f"expected the classes of {loader} in the order of the sorted folders of {folder!r}, by which mmpretrain "
            f"numbers them, got {names[place]!r} as class {place}, which is the folder {found[place]!r}: sort "
            "`classes`, or leave them out"
        )


def _named_classes(dataset: Mapping[str, Any]) -> list[str] | None:
    names = dataset.get("classes") or (dataset.get("metainfo") or {}).get("classes")
    if isinstance(names, str):
        path = Path(names).expanduser()
        return path.read_text().splitlines() if path.is_file() else None
    return [str(name) for name in names] if names else None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _left_out(dataset: Mapping[str, Any], folder: str, names: Sequence[str]) -> Iterator[Remark]:
    """Tell of images that mmpretrain does not read because of their endings, and of those that may be masks."""
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
    """What the folder is if it holds no class folders, with what to do, or nothing."""
    found = recognise(Path(folder))
    if found.kind == "tiny_imagenet_val":
        return f"these are {found.title}; sort them with tools/prepare_small_data.py tiny-imagenet, or "
    if found.kind in ("empty", "class_folders") or (found.kind == "images" and not look(folder).images):
        return ""
    if found.kind in READ_BY_CLASS:
        return f"these are {found.title}, which `dtn-det mce` evaluates; "
    return f"these are {found.title}; {found.advice()}; or "


def _check_evaluators(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """The five likeliest of three classes are asked for after a whole epoch."""
    for key in [loader.replace("_dataloader", "_evaluator") for loader in dataloaders]:
        metrics = cfg.get(key)
        for path, metric in [(key, metrics)] if isinstance(metrics, Mapping) else _numbered(key, metrics or ()):
            topk = metric.get("topk", ()) if isinstance(metric, Mapping) else ()
            most = max([topk] if isinstance(topk, int) else topk, default=0)
            if numbers and most > min(numbers.values()):
                raise InputError(
                    f"expected {path}.topk of at most {min(numbers.values())}, the number of classes, got {topk}: add "
                    f"--cfg-options {path}.topk=1"
                )


def _numbered(key: str, values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{key}.{index}", value) for index, value in enumerate(values))


def class_numbers(cfg: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Keys of a classifier's config that say how many classes there are, and the number of each."""
    yield from _number("data_preprocessor", cfg.get("data_preprocessor"))
    path, model = "model", cfg.get("model")
    while isinstance(model, Mapping):
        yield from _number(path, model)
        yield from _number(f"{path}.head", model.get("head"))
        yield from _number(f"{path}.data_preprocessor", model.get("data_preprocessor"))
        # Of a ConvertedModel.
        path, model = f"{path}.model", model.get("model")


def _number(path: str, settings: Any) -> Iterator[tuple[str, int]]:
    number = settings.get("num_classes") if isinstance(settings, Mapping) else None
    if isinstance(number, int):
        yield f"{path}.num_classes", number


def _folders(folder: str) -> list[str]:
    """As mmpretrain lists them: hidden ones too."""
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


def check_image_lists(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """Check the labels in lists such as ``meta/train.txt``, lines of a path and a label.

    Args:
        cfg: The config.
        dataloaders: Keys such as ``"train_dataloader"``.
        numbers: Keys of the config that say how many classes the model has.

    Raises:
        ValueError: A line without a label, a label beyond the model's classes, or a folder that has another label in
            another list.
    """
    seen: dict[str, tuple[int, str]] = {}
    for loader, dataset in [(name, dataset) for name in dataloaders for dataset in innermost_datasets(cfg.get(name))]:
        path = image_list(dataset)
        if path is None or not os.path.isfile(path):
            continue
        labels: dict[str, int | None] = {}
        for number, name, label in _lines(path):
            for key, classes in numbers.items():
                if not 0 <= label < classes:
                    raise InputError(
                        f"expected labels of 0 to {classes - 1} ({key}) for {loader}, got {label} in line {number} of "
                        f"{path}: name the list of the model's classes, or change the model with --cfg-options "
                        f"{key}=NUMBER"
                    )
            folder = PurePosixPath(name).parent.name
            # Folders of several classes are no classes.
            labels[folder] = label if labels.get(folder, label) == label else None
        for folder, label_or_none in labels.items():
            if not folder or label_or_none is None or len(labels) == 1:
                continue
            other, where = seen.setdefault(folder, (label_or_none, path))
            if other != label_or_none:
                raise InputError(
                    f"expected the label {other} for the folder {folder!r} as in {where}, got {label_or_none} in "
                    f"{path} for {loader}: number the classes of both lists alike"
                )


def image_list(dataset: Mapping[str, Any]) -> str | None:
    """The list of images and labels of a dataset of mmpretrain, None where it has another form."""
    kind = str(dataset.get("type")).rpartition(".")[2]
    if kind not in ("CustomDataset", "ImageNet") or not dataset.get("with_label", True):
        return None
    root, name, split = dataset.get("data_root") or "", dataset.get("ann_file") or "", dataset.get("split")
    if not name and kind == "ImageNet" and split and split != "test":
        name = os.path.join("meta", f"{split}.txt")
    if not isinstance(name, str) or not name or "://" in root + name:
        return None
    return os.path.join(root, name)


def _lines(path: str) -> Iterator[tuple[int, str, int]]:
    """Number, path and label of each line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            name, _, label = line.strip().rpartition(" ")
            try:
                yield number, name, int(label)
            except ValueError:
                raise InputError(
                    f"expected a path and a label in line {number} of {path}, got {line.strip()!r}: mend the line, or "
                    "add dataset.with_label=False"
                ) from None
