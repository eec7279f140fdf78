"""Tells whether stores are of several sets, and divides them by set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dtn_det.datasets.sets import set_name
from dtn_det.errors import ReportError
from dtn_det.reports.sources import Sources, label_and_folder, open_sources, title_of_folder
from dtn_det.robustness.importing import FOLDER, read_imported
from dtn_det.robustness.store import Store

_ORDER = (
    *("imagenet", "imagenet-real", "imagenet-c", "imagenet-c-bar", "imagenet-3dcc", "imagenet-r", "imagenet-a"),
    *("imagenet-v2", "imagenet-sketch", "tiny-imagenet", "cifar-10", "cifar-100", "coco", "coco-c", "coco-o"),
)
"""Beginnings of the names of sets, in the order of the overview; other names follow."""


@dataclass(frozen=True)
class SetSources:
    """The stores of one set.

    Attributes:
        name: Name of the set in files and keys, such as ``imagenet-c``.
        title: Name of the set for readers, such as ``ImageNet-C``, or the name that the user gave it.
        known: Title of the set that its files tell; empty if they tell none.
    """

    name: str
    title: str
    known: str
    sources: Sources


def open_sets(stores: Sequence[str | Path], chosen: Sequence[str] = ()) -> tuple[SetSources, ...]:
    """Open stores of several sets.

    Stores are of several sets if one argument is a folder of stores, as ``dtn-det evaluate`` writes it, or if the files
    of each set told what it is and the sets differ. A store in a folder of stores has the name of its own folder.

    Args:
        stores: Folders with results, and folders of such folders; see :func:`dtn_det.reports.sources.open_sources`.
        chosen: Names of the models to take, in this order; all if empty.

    Returns:
        The sets in the order of the overview; none if the stores are of one set.

    Raises:
        ReportError: The stores of a set do not fit together, a chosen model is in none, a folder of stores has no
            results, or some sets are of classifiers and some of detectors.
        StoreError: A store is damaged.
    """
    groups: dict[str, list[str | Path]] = {}
    titles: dict[str, tuple[str, str]] = {}
    several = False
    for text in stores:
        label, folder = label_and_folder(text)
        inner = _inner_stores(folder)
        several = several or bool(inner)
        for child in inner or [folder]:
            title = title_of_folder(child)
            own = set_name(title)
            name = child.resolve().name if inner else own
            groups.setdefault(name, []).append(f"{label}={child}" if label else child)
            titles.setdefault(name, (title if own == name else name, title))
    if not several and ("" in groups or len(groups) < 2):
        return ()
    if "" in groups:
        raise ReportError(
            f"expected stores that tell their set beside those of others, got {groups[''][0]}: move it into the folder "
            "of the stores, under the name that the set shall have"
        )
    opened = [SetSources(name, *titles[name], open_sources(group)) for name, group in groups.items()]
    opened.sort(key=lambda one: _place(one.name))
    return _chosen(opened, chosen)


def _chosen(opened: Sequence[SetSources], chosen: Sequence[str]) -> tuple[SetSources, ...]:
    first = opened[0]
    for one in opened:
        if one.sources.task != first.sources.task:
            raise ReportError(
                f"expected models of one task in a report of several sets, got {first.sources.task} in "
                f"{first.name} and {one.sources.task} in {one.name}: make a report of each"
            )
    known = list(dict.fromkeys(name for one in opened for name in one.sources.models))
    unknown = [name for name in chosen if name not in known]
    if unknown or len(set(chosen)) < len(chosen):
        raise ReportError(f"expected each of --models once, out of {', '.join(known)}, got {', '.join(chosen)}")
    kept = []
    for one in opened:
        models = {name: one.sources.models[name] for name in chosen or known if name in one.sources.models}
        if models:
            kept.append(replace(one, sources=replace(one.sources, models=models)))
    return tuple(kept)


def _inner_stores(folder: Path) -> list[Path]:
    """Return the stores in a folder of stores that have results; none if the folder is a store or something else."""
    if (folder / "store.json").is_file() or not folder.is_dir() or read_imported(folder):
        return []
    measured = {path.parent for path in folder.glob("*/store.json")}
    inner = sorted(measured | {path.parent.parent for path in folder.glob(f"*/{FOLDER}/*.json")})
    begun = [path for path in inner if _has_results(path)]
    if inner and not begun:
        raise ReportError(
            f"expected results in the stores of {folder}, got none in {', '.join(path.name for path in inner)}: run "
            "the `dtn-det evaluate` command again, which continues"
        )
    return begun


def _has_results(folder: Path) -> bool:
    measured = Store.open(folder).models().values() if (folder / "store.json").is_file() else ()
    return any(model.finished() for model in measured) or bool(read_imported(folder))


def _place(name: str) -> tuple[int, str]:
    fitting = [number for number, start in enumerate(_ORDER) if name == start or name.startswith(f"{start}-")]
    # The longest beginning is the one that is meant: imagenet-c-bar begins with imagenet, too.
    return (max(fitting, key=lambda number: len(_ORDER[number]), default=len(_ORDER)), name)
