"""Whether folders of classes are those of a classifier's config.

mmpretrain numbers the classes by the sorted names of their folders: a folder too few, or one of another name, gives
wrong labels without a word, or an index error minutes later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtn_det.data_settings import class_folder, innermost_datasets

_NAMES_SHOWN = 5


def check_class_folders(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> None:
    """Check the folders of classes against the model and against each other.

    Datasets without labels, of annotation files or of other kinds are passed over, and so are models that do not say
    how many classes they have.

    Args:
        cfg: The config.
        dataloaders: Keys such as ``"train_dataloader"``.

    Raises:
        ValueError: The number of folders is not that of the model's classes, or their names are not those of the other
            dataloaders, or an evaluator looks at more classes than there are.
    """
    numbers = dict(_class_numbers(cfg))
    first: tuple[str, str, list[str]] | None = None
    for loader, dataset in [(name, dataset) for name in dataloaders for dataset in innermost_datasets(cfg.get(name))]:
        folder = class_folder(dataset)
        if folder is None or not os.path.isdir(folder):
            continue
        found = _folders(folder)
        if first is not None and first[2] != found:
            raise ValueError(
                f"expected {folder!r} for {loader} to have the classes of {first[1]!r} for {first[0]}, got "
                f"{_difference(first[2], found)}: the sorted names of the folders number the classes, so they must be "
                "the same"
            )
        first = loader, folder, found
        for key, number in numbers.items():
            if len(found) != number:
                options = " ".join(f"{name}={len(found)}" for name in numbers)
                raise ValueError(
                    f"expected folders of {number} classes ({key}) for {loader}, got {len(found)} in {folder!r}"
                    f"{_shown(found)}: name the folder of the dataset with --data-root, or change the model with "
                    f"--cfg-options {options}"
                )
    _check_evaluators(cfg, dataloaders, numbers)


def _check_evaluators(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """The five likeliest of three classes are asked for after a whole epoch."""
    for key in [loader.replace("_dataloader", "_evaluator") for loader in dataloaders]:
        metrics = cfg.get(key)
        for path, metric in [(key, metrics)] if isinstance(metrics, Mapping) else _numbered(key, metrics or ()):
            topk = metric.get("topk", ()) if isinstance(metric, Mapping) else ()
            most = max([topk] if isinstance(topk, int) else topk, default=0)
            if numbers and most > min(numbers.values()):
                raise ValueError(
                    f"expected {path}.topk of at most {min(numbers.values())}, the number of classes, got {topk}: add "
                    f"--cfg-options {path}.topk=1"
                )


def _numbered(key: str, values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{key}.{index}", value) for index, value in enumerate(values))


def _class_numbers(cfg: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Keys of the config that say how many classes there are."""
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
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _shown(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:_NAMES_SHOWN])}{', ...' if len(names) > _NAMES_SHOWN else ''})" if names else ""


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    said = [f"{len(names)} {what}{_shown(names)}" for what, names in (("missing", missing), ("more", extra)) if names]
    return " and ".join(said)
