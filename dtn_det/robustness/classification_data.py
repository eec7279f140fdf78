"""What an evaluation of classifiers is asked to do, and the data that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corruptions.catalog import BENCHMARK, SEVERITIES
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.profiles import get_profile
from dtn_det.robustness.cells import Cell, sweep_cells
from dtn_det.robustness.classification_images import SIDES, Cells, CorruptedHere
from dtn_det.robustness.imagenet_data import LabelledImages, file_size, guess_classes, imagenet_wnids, list_images
from dtn_det.robustness.imagenet_data_tree import CorruptedOnDisk, CorruptedTree, find_tree, list_tree, match_clean
from dtn_det.robustness.manifest import hash_lines


@dataclass(frozen=True)
class ClassificationRun:
    """What the user asked for; see ``dtn-det mce --help``."""

    models: Sequence[str]
    data: Path
    store: Path
    clean: Path | None = None
    profile: str | None = None
    corruptions: Sequence[str] = BENCHMARK
    severities: Sequence[int] = SEVERITIES
    classes: str | None = None
    names: Sequence[str] | None = None
    baseline: str | None = None
    limit: int | None = None
    limit_seed: int = 0
    seed: int = 0
    jpeg: bool | None = None
    frost: Path | None = None
    engine: int | None = None
    workers: int = 1
    batch_size: int = 128
    unit_size: int = 64
    amp: bool = False
    records_bad: bool = False


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    Attributes:
        images: Clean images and classes.
        digest: Of the images.
        cells: Conditions.
        source: Where the corrupted images come from.
        corruption: Identity of the corruptions.
        side: Of the images.
        classes: How classes are numbered.
        profile: Benchmark.
        clean_digest: Of the clean images beside corrupted ones on disk.
    """

    images: LabelledImages
    digest: str
    cells: tuple[Cell, ...]
    source: Cells
    corruption: str
    side: int
    classes: str
    profile: str
    clean_digest: str | None = None


def prepare(run: ClassificationRun) -> Prepared:
    """Look at the data.

    Raises:
        ValueError: They do not fit what was asked for.
        FileNotFoundError: A folder is not there.
    """
    if not run.data.is_dir():
        raise FileNotFoundError(f"expected --data to be a folder of images, got {run.data}: there is no such folder")
    cells = sweep_cells(run.corruptions, run.severities)
    tree = find_tree(run.data)
    return _from_clean(run, cells) if tree is None else _from_tree(run, cells, tree)


def _known_classes(classes: str) -> str:
    """See that ImageNet's classes are at hand before the images are listed, which may take minutes."""
    if classes == "imagenet":
        imagenet_wnids()
    return classes


def _from_clean(run: ClassificationRun, cells: tuple[Cell, ...]) -> Prepared:
    if run.clean is not None:
        raise ValueError(
            f"expected --clean only with corrupted images on disk, got {run.data} without folders such as "
            "gaussian_noise/1: leave --clean out, the images in --data are clean"
        )
    classes = _known_classes(run.classes or guess_classes(run.data))
    frost = None if run.frost is None else str(run.frost)
    corruptor = Corruptor(run.profile or "imagenet-c", run.seed, run.jpeg, frost_folder=frost, engine=run.engine)
    images = list_images(run.data, classes, run.limit, run.limit_seed)
    source = CorruptedHere(corruptor, cells)
    side = SIDES[corruptor.profile]
    return Prepared(images, images.digest, cells, source, corruptor.identity, side, classes, corruptor.profile)


def _from_tree(run: ClassificationRun, cells: tuple[Cell, ...], tree: CorruptedTree) -> Prepared:
    if run.seed or run.jpeg is not None or run.frost is not None or run.engine is not None:
        raise ValueError(
            f"expected --seed, --no-jpeg, --frost and --engine with clean images only, got the corrupted ones of "
            f"{run.data}: leave these options out"
        )
    profile = run.profile or tree.profile or "imagenet-c"
    get_profile(profile)
    corrupted = cells[1:]
    classes = _known_classes(run.classes or guess_classes(next(iter(tree.folders.values()))))
    images, digest = list_tree(tree, run.data, corrupted, classes, run.limit, run.limit_seed)
    clean = {} if run.clean is None else match_clean(images, run.clean, classes)
    cells = cells if run.clean is not None else corrupted
    folders = {cell: tree.folders[cell] for cell in corrupted}
    source = CorruptedOnDisk(folders, cells, clean, SIDES[profile])
    sizes = hash_lines(f"{key} {file_size(path)}" for key, path in clean.items()) if run.clean is not None else None
    return Prepared(images, digest, cells, source, tree.identity, SIDES[profile], classes, profile, sizes)
