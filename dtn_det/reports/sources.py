"""Open the stores of a report, check that their models are comparable, and choose the pairs to compare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corruptions.catalog import catalog_for
from dtn_det.corruptions.cells import CLEAN
from dtn_det.corruptions.identity import engine_changes
from dtn_det.datasets.folders.label_maps import SUBSETS
from dtn_det.datasets.sets import set_title
from dtn_det.errors import ReportError, StoreError
from dtn_det.reports.contents import Task
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.importing import Imported, read_imported
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import StoreManifest

# Pattern of the norm in a model's name, such as `ln` or `dtn`, as a separate word.
_NORM = re.compile(r"(?<![a-z0-9])(dtn|ln|layernorm|layer-norm)(?![a-z0-9])[-_ ]?", re.IGNORECASE)


@dataclass(frozen=True)
class Sources:
    """The models that a report is made from.

    Attributes:
        models: Each model by the name that the report gives it, in the report's order.
    """

    task: Task
    models: Mapping[str, ModelStore | Imported]

    @property
    def stores(self) -> list[Store]:
        """The stores of the models that were evaluated here, without repetition; imported models have no store."""
        found = {model.store.folder: model.store for model in self.models.values() if isinstance(model, ModelStore)}
        return list(found.values())


def open_sources(stores: Sequence[str | Path], chosen: Sequence[str] = ()) -> Sources:
    """Open stores and check that their models are comparable in one table.

    Args:
        stores: Folders with results. If a folder is given as ``LABEL=FOLDER``, its models are called ``LABEL/NAME``.
        chosen: Names of the models to take, in this order; all if empty.

    Raises:
        ReportError: The stores are of different tasks, images or corruptions, two models have the same name, a chosen
            model is absent or repeated, or there is no model.
        StoreError: A store is damaged or of another version.
    """
    if not stores:
        raise ReportError("expected at least one folder with results, got none: name what `dtn-det mce` or `mpc` wrote")
    models: dict[str, ModelStore | Imported] = {}
    places: dict[str, Path] = {}
    for text in stores:
        label, folder = label_and_folder(text)
        for name, model in _models(folder):
            name = f"{label}/{name}" if label else name
            if name in models:
                raise ReportError(
                    f"expected models of different names, got {name!r} in {places[name]} and in {folder}: tell them "
                    f"apart with a label, such as first={places[name]} second={folder}"
                )
            models[name], places[name] = model, folder
    if not models:
        raise ReportError(
            f"expected results in {', '.join(map(str, stores))}, got a store without a finished model: evaluate one "
            "with `dtn-det mce` or `dtn-det mpc`"
        )
    unknown = [name for name in chosen if name not in models]
    if unknown:
        raise ReportError(f"expected --models out of {', '.join(models)}, got {', '.join(unknown)}")
    if len(set(chosen)) < len(chosen):
        raise ReportError(f"expected each of --models once, got {', '.join(chosen)}")
    taken = {name: models[name] for name in chosen} if chosen else models
    sources = Sources(_task(taken), taken)
    _check_alike(sources.stores)
    _check_datasets(taken)
    return sources


def label_and_folder(text: str | Path) -> tuple[str, Path]:
    """Divide ``LABEL=FOLDER``; the label is empty for a folder alone.

    Raises:
        ReportError: The label or the folder is empty.
    """
    if isinstance(text, Path) or Path(text).exists() or "=" not in text:
        return "", Path(text)
    label, _, folder = text.partition("=")
    if not label or not folder:
        raise ReportError(f"expected FOLDER or LABEL=FOLDER, got {text!r}")
    return label, Path(folder)


def _models(folder: Path) -> Iterator[tuple[str, ModelStore | Imported]]:
    """Yield the models of a folder that have results: first the models evaluated here, then the imported ones."""
    imported = read_imported(folder)
    if not imported or (folder / "store.json").is_file():
        for name, model in Store.open(folder).models().items():
            if model.finished():
                yield name, model
    yield from imported.items()


def _task(models: Mapping[str, ModelStore | Imported]) -> Task:
    tasks: dict[str, str] = {}
    for name, model in models.items():
        tasks.setdefault(model.store.manifest.task if isinstance(model, ModelStore) else model.task, name)
    if len(tasks) > 1:
        listed = " and ".join(f"{task} ({name})" for task, name in tasks.items())
        raise ReportError(f"expected models of one task in a report, got {listed}: make one report for each")
    return known_task(next(iter(tasks)))


def known_task(task: str) -> Task:
    """Check that reports support the task of a store, and return the task.

    Raises:
        StoreError: Reports do not support the task.
    """
    if task == "classification":
        return "classification"
    if task == "detection":
        return "detection"
    raise StoreError(f"expected the task classification or detection in a store, got {task!r}")


def _check_alike(stores: Sequence[Store]) -> None:
    """Raise a ReportError unless all stores are of the same images, corruptions and settings of the evaluation."""
    first = stores[0] if stores else None
    for store in stores[1:]:
        assert first is not None
        one, other = first.manifest, store.manifest
        different = []
        annotations_alone = _same_images(one, other)
        imported = bool(one.imported or other.imported)
        same_data = one.data_hash == other.data_hash or (imported and _same_truth(first, store))
        if not same_data:
            different.append(_data_difference(one, other))
        # If the hashes are equal, the same images were selected, even if the texts differ: earlier versions called some
        # selections "all".
        if not same_data and one.selection != other.selection:
            different.append(f"selection: {one.selection} and {other.selection}")
        # How the images of imported results were corrupted is not known; reports tell this.
        if one.corruption != other.corruption and not imported:
            changes = engine_changes(one.corruption, other.corruption)
            reason = f" ({changes})" if changes else ""
            different.append(f"corruption: {one.corruption} and {other.corruption}{reason}")
        protocol = {**one.protocol, **other.protocol}
        different += [
            f"{key}: {one.protocol.get(key)} and {other.protocol.get(key)}"
            for key in protocol
            if key != "bad_images" and one.protocol.get(key) != other.protocol.get(key)
        ]
        if different:
            lines = "".join(f"\n  {line}" for line in different)
            cure = "make one report for each"
            if annotations_alone and len(different) == 1:
                cure = (
                    f"run the `dtn-det mpc` command of {_with_older_annotations(first, store)} again: it takes the "
                    "annotations as they are now and keeps the detections"
                )
            raise ReportError(
                f"expected stores of the same images and corruptions in one report, got {first.folder} and "
                f"{store.folder} that differ:{lines}\n{cure}"
            )


def _check_datasets(models: Mapping[str, ModelStore | Imported]) -> None:
    """Raise a ReportError if results of classifiers are known to be on different data sets."""
    sets: dict[str, str] = {}
    for name, model in models.items():
        if isinstance(model, Imported):
            title = model.source.dataset
        else:
            manifest = model.store.manifest
            catalog = catalog_for(corruption for corruption, _ in manifest.cells)
            title = catalog.title if manifest.protocol.get("classes") == "imagenet" else ""
        if title:
            sets.setdefault(title, name)
    if len(sets) > 1:
        listed = " and ".join(f"{title} ({name})" for title, name in sets.items())
        raise ReportError(f"expected results on one data set in a report, got {listed}: make one report for each")


def _same_images(one: StoreManifest, other: StoreManifest) -> bool:
    """Return whether two data sets of detectors differ only in the annotations, which `mpc` can replace in a store."""
    same = one.data == other.data and bool(one.images_hash) and one.images_hash == other.images_hash
    return same and one.data_hash != other.data_hash


def _same_truth(first: Store, second: Store) -> bool:
    """Return whether two stores of detectors have equal images and annotations, whatever the sizes of the files."""
    truths = [CocoTruth.of(store) for store in (first, second)]
    hashes = {truth.hash([0] * len(truth.images)) for truth in truths}
    return len(hashes) == 1


def _data_difference(one: StoreManifest, other: StoreManifest) -> str:
    """Describe how two data sets differ, even if their names and numbers of images are the same."""
    first, second = (f"{manifest.data} ({manifest.num_images:,} images)" for manifest in (one, other))
    if _same_images(one, other):
        return f"annotations: {first} had others when each was evaluated, of the same images"
    if first == second:
        return f"data set: both are called {first}, and their files or labels differ"
    return f"data set: {first} and {second}"


def _with_older_annotations(first: Store, second: Store) -> str:
    """Return the folder of the store with the older annotations, or a description if it is unknown which are older."""
    for older, newer in ((first, second), (second, first)):
        if older.manifest.data_hash in newer.manifest.earlier_data_hashes:
            return str(older.folder)
    return "the store whose annotations are the older ones"


def find_pairs(names: Sequence[str], baseline: str | None = None) -> tuple[tuple[str, str], ...]:
    """Choose the pairs of models to compare; the difference of a pair is second minus first.

    Two models whose names differ in the norm only (`ln` and `dtn`, `swin-t` and `dtn-swin-t`) are a pair, with DTN
    second. If there is no such pair, each model is compared with the baseline or, without a baseline, with the first
    model.

    Args:
        baseline: The model to compare the other models with; None for the first model.
    """
    twins: dict[str, dict[str, list[str]]] = {}
    for name in names:
        norms = {match[1].lower() for match in _NORM.finditer(name)}
        rest = _NORM.sub("", name).strip("-_ /").lower()
        twins.setdefault(rest, {}).setdefault("dtn" if "dtn" in norms else "ln", []).append(name)
    found = tuple(
        (one["ln"][0], one["dtn"][0])
        for one in twins.values()
        if len(one.get("ln", ())) == 1 and len(one.get("dtn", ())) == 1
    )
    if found:
        return found
    first = baseline if baseline is not None else names[0]
    return tuple((first, name) for name in names if name != first)


def in_order(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names in the given order, but with the first model of each pair moved before the second."""
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(first for first, second in pairs if second == name))
        found[name] = None
    return list(found)


def parse_pairs(texts: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Parse pairs of models that the user wrote as ``FIRST:SECOND``.

    Raises:
        ReportError: A text does not name two different models.
    """
    found = []
    for text in texts:
        # Names may contain a colon, as timm's do, so try each colon as the separator between the two names.
        splits = [(text[:place], text[place + 1 :]) for place, sign in enumerate(text) if sign == ":"]
        known = [pair for pair in splits if pair[0] in names and pair[1] in names and pair[0] != pair[1]]
        if len(known) != 1:
            raise ReportError(f"expected --pairs FIRST:SECOND with two models out of {', '.join(names)}, got {text!r}")
        found.append(known[0])
    return tuple(found)


def title_of(manifest: StoreManifest) -> str:
    """Return the title of the set of a store, such as ``ImageNet-C`` or ``COCO-O sketch``; empty if nothing tells."""
    found = manifest.recognised
    dataset = found.get("dataset") or SUBSETS.get(manifest.protocol.get("classes", ""), "")
    corrupted = set(manifest.cells) != {CLEAN}
    real = manifest.protocol.get("labels") == "Real"
    return set_title(dataset, found.get("profile", ""), corrupted=corrupted, real=real)


def title_of_folder(folder: Path) -> str:
    """Return the title of the set of a store; empty if nothing tells it."""
    if (folder / "store.json").is_file():
        return title_of(Store.open(folder).manifest)
    try:
        sets = {model.source.dataset for model in read_imported(folder).values()}
    except (StoreError, ReportError):
        return ""
    return sets.pop() if len(sets) == 1 else ""
