"""What an evaluation of classifiers is asked to do, and the data that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.checkpoints.state_dict import WeightsKind
from dtn_det.corrupted_folders.reading import (
    CorruptedTree,
    clean_lines,
    list_tree,
    match_clean,
    open_tree,
    unused_clean,
)
from dtn_det.corruptions.catalog import BENCHMARK, SEVERITIES
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.profiles import get_profile
from dtn_det.datasets.folders.class_folders import LabelledImages, check_clean, label_images, list_images
from dtn_det.datasets.folders.image_files import square_side
from dtn_det.datasets.folders.label_maps import imagenet_wnids
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.cells import Cell, sweep_cells
from dtn_det.robustness.classification.images import SIDES, Cells, CorruptedHere, CorruptedOnDisk
from dtn_det.robustness.store.manifest import hash_lines


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
    weights: WeightsKind | None = None


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    Attributes:
        found: What the folder was recognised as.
        images: Images and classes.
        digest: Of the images.
        cells: Conditions.
        source: Where the corrupted images come from.
        corruption: Identity of the corruptions.
        side: Of the images.
        profile: Benchmark.
        clean_digest: Of the clean images beside corrupted ones on disk.
        remarks: What was left out, filled in or decided.
    """

    found: Recognised
    images: LabelledImages
    digest: str
    cells: tuple[Cell, ...]
    source: Cells
    corruption: str
    side: int
    profile: str
    clean_digest: str | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def classes(self) -> str:
        """How classes are numbered."""
        return self.images.labels.classes

    @property
    def cropped_after(self) -> bool:
        """Whether the images were corrupted at their own size and are cropped when they are read."""
        return isinstance(self.source, CorruptedOnDisk) and self.source.cropped_after


def prepare(run: ClassificationRun) -> Prepared:
    """Look at the data.

    Raises:
        ValueError: They do not fit what was asked for.
        FileNotFoundError: A folder is not there.
    """
    if not run.data.is_dir():
        raise FileNotFoundError(f"expected --data to be a folder of images, got {run.data}: there is no such folder")
    cells = sweep_cells(run.corruptions, run.severities)
    found = recognise(run.data)
    if found.kind == "corrupted":
        return _from_tree(run, cells, open_tree(found))
    check_clean(found, run.classes)
    return _from_clean(run, cells, found)


def _check_wnids(classes: str) -> None:
    """See that ImageNet's classes are at hand before the images are listed, which may take minutes."""
    if classes == "imagenet":
        imagenet_wnids()


def _from_clean(run: ClassificationRun, cells: tuple[Cell, ...], found: Recognised) -> Prepared:
    if run.clean is not None:
        raise InputError(
            f"expected --clean only with corrupted images on disk, got {run.data} without folders such as "
            "gaussian_noise/1: leave --clean out, the images in --data are clean"
        )
    _check_wnids(run.classes or found.classes)
    frost = None if run.frost is None else str(run.frost)
    profile = run.profile or found.profile or "imagenet-c"
    corruptor = Corruptor(profile, run.seed, run.jpeg, frost_folder=frost, engine=run.engine)
    images = label_images(found, run.classes, run.limit, run.limit_seed)
    digest = hash_lines(images.lines())
    remarks = (*images.remarks, *_chosen_profile(run, found, profile))
    source = CorruptedHere(corruptor, cells)
    identity, side = corruptor.identity, SIDES[corruptor.profile]
    return Prepared(found, images, digest, cells, source, identity, side, corruptor.profile, remarks=remarks)


def _from_tree(run: ClassificationRun, cells: tuple[Cell, ...], tree: CorruptedTree) -> Prepared:
    if run.seed or run.jpeg is not None or run.frost is not None or run.engine is not None:
        raise InputError(
            f"expected --seed, --no-jpeg, --frost and --engine with clean images only, got the corrupted ones of "
            f"{run.data}: leave these options out"
        )
    found = tree.found
    profile = run.profile or tree.profile or found.profile or "imagenet-c"
    get_profile(profile)
    corrupted = cells[1:]
    _check_wnids(run.classes or found.classes)
    twins = None if run.clean is None else list_images(run.clean, run.classes or found.classes)
    images, lines = list_tree(tree, corrupted, run.classes, run.limit, run.limit_seed, twins)
    side = _side(run, found, profile)
    cropped_after = side == SIDES["imagenet-c"] and bool(found.sizes) and square_side(found.sizes) != side
    remarks = images.remarks
    if tree.profile is None:
        remarks += _chosen_profile(run, found, profile)
    if cropped_after:
        remarks += (_cropped_after(found, side),)
    clean = {}
    if run.clean is not None and twins is not None:
        clean = match_clean(images, twins, run.clean)
        remarks += unused_clean(images, twins, run.clean)
    cells = cells if run.clean is not None else corrupted
    folders = {(name, severity): tree.folders[name, severity] for name, severity in corrupted}
    source = CorruptedOnDisk(folders, cells, clean, side, cropped_after)
    sizes = hash_lines(clean_lines(clean)) if run.clean is not None else None
    digest = hash_lines(lines)
    return Prepared(found, images, digest, cells, source, tree.identity, side, profile, sizes, remarks)


def _side(run: ClassificationRun, found: Recognised, profile: str) -> int:
    """The side of the images of a tree: that which they have, unless the user names a benchmark."""
    own = square_side(found.sizes)
    return own if run.profile is None and own in SIDES.values() and own is not None else SIDES[profile]


def _chosen_profile(run: ClassificationRun, found: Recognised, profile: str) -> tuple[Remark, ...]:
    """Say so where the size of the images decided on a benchmark that is not the usual one."""
    if run.profile is not None or found.profile is None or profile == "imagenet-c":
        return ()
    side = square_side(found.sizes)
    what = f"benchmark was chosen by the size of the images: {profile} for {side} x {side} (--profile names another)"
    return (Remark("profile_by_size", what, str(found.root)),)


def _cropped_after(found: Recognised, side: int) -> Remark:
    width, height = min(found.sizes)
    what = (
        f"tree was corrupted at the images' own size, such as {width} x {height}: each is resized to 256 and its "
        f"centre of {side} x {side} cut out after the corruption, while ImageNet-C was cropped before it"
    )
    return Remark("cropped_after_corruption", what, str(found.root))
