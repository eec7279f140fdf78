"""Read the data for evaluating classifiers: the images and classes of a folder, and how the images are corrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dtn_det.corrupted_folders.reading import (
    CorruptedTree,
    clean_lines,
    list_tree,
    match_clean,
    open_tree,
    unused_clean,
)
from dtn_det.corruptions.catalog import IMAGENET_C_CATALOG, Catalog, catalog_for, select_corruptions
from dtn_det.corruptions.cells import CLEAN, Cell, sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.identity import CorruptionOrigin
from dtn_det.corruptions.image import RESIZE
from dtn_det.corruptions.profiles import get_profile
from dtn_det.datasets.arrays.corrupted import open_arrays
from dtn_det.datasets.arrays.twins import match_rows
from dtn_det.datasets.folders.corruption_folders import one_catalog
from dtn_det.datasets.folders.image_files import square_side
from dtn_det.datasets.folders.label_maps import SUBSETS, imagenet_wnids
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.labelled import LabelledImage, LabelledImages, file_size
from dtn_det.datasets.real_labels import with_real_labels
from dtn_det.datasets.remarks import Remark
from dtn_det.datasets.sets import NATURAL, check_set, label_set, list_set
from dtn_det.errors import InputError
from dtn_det.robustness.classification.images import SIDES, CorruptedHere, CorruptedOnDisk, CorruptedRows, Source
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store.manifest import hash_lines


@dataclass(frozen=True)
class Prepared:
    """The prepared data of an evaluation.

    Attributes:
        digest: Hash of the list of images.
        cells: The cells, each a corruption at a severity, in the order of their numbers.
        source: The source of the corrupted images, which makes them or reads them from disk.
        corruption: Identity of the corruptions for the store's manifest.
        clean_digest: Hash of the list of clean images, if the corrupted images are read from disk; None if this run
            makes them.
    """

    found: Recognised
    images: LabelledImages
    digest: str
    cells: tuple[Cell, ...]
    source: Source
    corruption: str
    side: int
    profile: str
    clean_digest: str | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def classes(self) -> str:
        """How classes are numbered: one of :data:`dtn_det.datasets.folders.label_maps.CLASSES`."""
        return self.images.labels.classes

    @property
    def cropped_after(self) -> bool:
        """Return whether the images were corrupted at their original size, and so are cropped when they are read."""
        return isinstance(self.source, CorruptedOnDisk) and self.source.cropped_after


def prepare(options: ClassificationOptions) -> Prepared:
    """Recognise the folders that the options name, list their images, and decide how to corrupt or read the images.

    Raises:
        ValueError: The data do not fit the options, or have one class alone.
        FileNotFoundError: A folder does not exist.
    """
    prepared = _prepare(options)
    prepared.images.check_classes(prepared.found.root)
    return prepared


def _prepare(options: ClassificationOptions) -> Prepared:
    if not options.data.is_dir() and options.data.suffix != ".parquet":
        raise FileNotFoundError(
            f"expected --data to be a folder of images, got {options.data}: there is no such folder"
        )
    if options.profile is not None:
        get_profile(options.profile)
    found = recognise(options.data)
    if found.kind == "array_corruptions":
        return _from_arrays(options, found)
    words = _words(options, found)
    catalog = _catalog(options, found)
    cells = sweep_cells(select_corruptions(words, catalog) if words else (), options.severities)
    if options.labels is not None and found.kind != "class_folders":
        raise InputError(
            f"expected --labels with ImageNet's validation images in class folders, got {found.title} in "
            f"{found.root}: leave --labels out"
        )
    if found.kind == "corrupted" and not words:
        raise InputError(
            f"expected --corruptions none with clean images, got {found.title} in {found.root}: name corruptions"
        )
    if found.kind == "corrupted":
        return _from_tree(options, cells, open_tree(found))
    check_set(found, options.classes)
    return _from_clean(options, cells, found)


def _catalog(options: ClassificationOptions, found: Recognised) -> Catalog:
    """Return the corruptions of the benchmark: that of a corrupted folder, or else that of the user's profile."""
    if found.kind == "corrupted" and found.corruptions is not None:
        small = square_side(found.sizes) == SIDES["cifar-c"]
        return one_catalog(found.corruptions.names, options.corruptions, found.root, small=small)
    return IMAGENET_C_CATALOG if options.profile is None else get_profile(options.profile).catalog


NONE = "none"
"""What users write for no corruptions."""

TWIN = "clean_twin"
"""Folder in a store with the results on the clean images of the same classes."""


def _words(options: ClassificationOptions, found: Recognised) -> Sequence[str]:
    """Return the chosen corruptions and groups; by default the benchmark, or none for a set of natural shifts."""
    if options.corruptions is None:
        return () if found.dataset.startswith(NATURAL) and found.kind == "class_folders" else ("benchmark",)
    return () if list(options.corruptions) == [NONE] else options.corruptions


def twin_options(options: ClassificationOptions, classes: str) -> ClassificationOptions | None:
    """Return options to evaluate clean images of ImageNet-R's or ImageNet-A's classes; None for other sets.

    Args:
        options: The options to evaluate ImageNet-R or ImageNet-A itself.
        classes: How the classes of the set are numbered.
    """
    if options.clean is None or classes not in SUBSETS:
        return None
    return replace(options, data=options.clean, clean=None, classes=classes, corruptions=(), store=options.store / TWIN)


def _check_wnids(classes: str) -> None:
    """Check that the list of ImageNet's classes can be read, before the images are listed, which may take minutes."""
    if classes in ("imagenet", *SUBSETS):
        imagenet_wnids()


def _from_clean(options: ClassificationOptions, cells: tuple[Cell, ...], found: Recognised) -> Prepared:
    if options.clean is not None and (options.classes or found.classes) in SUBSETS:
        _check_twin(options, found)
    elif options.clean is not None:
        raise InputError(
            f"expected --clean only with corrupted images on disk, got {options.data} without folders such as "
            "gaussian_noise/1: leave --clean out, the images in --data are clean"
        )
    _check_wnids(options.classes or found.classes)
    frost = None if options.frost is None else str(options.frost)
    profile = options.profile or found.profile or "imagenet-c"
    corruptor = Corruptor(profile, options.seed, options.jpeg, frost_folder=frost, engine=options.engine)
    images = label_set(found, options.classes, options.limit, options.limit_seed)
    if options.labels is not None:
        images = with_real_labels(images, options.labels)
    digest = hash_lines(images.lines())
    side = SIDES[corruptor.profile]
    remarks = (*images.remarks, *_chosen_profile(options, found, profile), *_taken_as_they_are(found, side))
    source = CorruptedHere(corruptor, cells)
    return Prepared(found, images, digest, cells, source, corruptor.identity, side, corruptor.profile, remarks=remarks)


def _check_twin(options: ClassificationOptions, found: Recognised) -> None:
    """Check before the evaluation that the clean images are of another set and have all its classes."""
    if options.clean is None:
        return
    clean = recognise(options.clean)
    images = label_set(clean, options.classes or found.classes, None, 0)
    if clean.dataset == found.dataset or images.num_folders < len(found.folders):
        raise InputError(
            f"expected the validation images of the {len(found.folders)} classes of {found.root} in {options.clean}, "
            f"got {clean.title}, with images of {images.num_folders}: name ImageNet's validation set with --clean"
        )


def _from_tree(options: ClassificationOptions, cells: tuple[Cell, ...], tree: CorruptedTree) -> Prepared:
    _check_made(options)
    found = tree.found
    corrupted = cells[1:]
    if options.partial:
        corrupted = tuple(cell for cell in corrupted if cell in tree.folders) or corrupted
    catalog = catalog_for(name for name, _ in corrupted)
    profile = options.profile or tree.profile or _own_profile(found, catalog)
    _check_wnids(options.classes or found.classes)
    twins = None if options.clean is None else list_set(options.clean, options.classes or found.classes)
    images, lines = list_tree(tree, corrupted, options.classes, options.limit, options.limit_seed, twins)
    side = _side(options, found, profile)
    cropped_after = side == SIDES["imagenet-c"] and bool(found.sizes) and square_side(found.sizes) != side
    remarks = images.remarks
    if tree.profile is None:
        remarks += _chosen_profile(options, found, profile)
    if cropped_after:
        remarks += (_cropped_after(found, side),)
    clean = {}
    if options.clean is not None and twins is not None:
        clean = match_clean(images, twins, options.clean)
        remarks += unused_clean(images, twins, options.clean)
    cells = (CLEAN, *corrupted) if options.clean is not None else corrupted
    folders = {(name, severity): tree.folders[name, severity] for name, severity in corrupted}
    source = CorruptedOnDisk(folders, cells, clean, side, cropped_after)
    sizes = hash_lines(clean_lines(clean)) if options.clean is not None else None
    digest = hash_lines(lines)
    return Prepared(found, images, digest, cells, source, tree.identity, side, profile, sizes, remarks)


def _from_arrays(options: ClassificationOptions, found: Recognised) -> Prepared:
    _check_made(options)
    if options.classes is not None:
        raise InputError(
            f"expected --classes with class folders only, got the arrays of {options.data}, whose labels.npy numbers "
            "the classes: leave --classes out"
        )
    arrays = open_arrays(options.data, options.corruptions)
    corrupted = sweep_cells(arrays.corruptions, options.severities)[1:]
    images = arrays.list_images(corrupted, options.limit, options.limit_seed)
    twins: Mapping[str, LabelledImage] = {}
    if options.clean is not None:
        twins = match_rows(images, arrays, list_set(options.clean), options.clean)
    cells = (CLEAN, *corrupted) if options.clean is not None else corrupted
    source = CorruptedRows({cell: arrays.place(cell, 0) for cell in corrupted}, cells, twins, arrays.side)
    pairs = [f"{key} {twin.key} {file_size(twin.path)}" for key, twin in twins.items()]
    side = arrays.side
    size = frozenset({(side, side)})
    found = replace(found, title=arrays.title, dataset=arrays.dataset, sizes=size)
    digest = hash_lines(images.lines())
    profile = options.profile or found.profile or "cifar-c"
    identity = str(CorruptionOrigin.of_files(None))
    clean = hash_lines(pairs) if options.clean is not None else None
    return Prepared(found, images, digest, cells, source, identity, side, profile, clean, images.remarks)


def _check_made(options: ClassificationOptions) -> None:
    """Refuse options on how images are corrupted if the images are corrupted already."""
    if options.seed or options.jpeg is not None or options.frost is not None or options.engine is not None:
        raise InputError(
            f"expected --seed, --no-jpeg, --frost and --engine with clean images only, got the corrupted ones of "
            f"{options.data}: leave these options out"
        )


def _own_profile(found: Recognised, catalog: Catalog) -> str:
    """Choose the profile of a tree that names none: by its corruptions, and for ImageNet-C by its image size."""
    if catalog is IMAGENET_C_CATALOG:
        return found.profile or "imagenet-c"
    return catalog.profile or "imagenet-3dcc"


def _side(options: ClassificationOptions, found: Recognised, profile: str) -> int:
    """Return the images' side if a benchmark uses it and the user chose no profile; else the side of ``profile``."""
    own = square_side(found.sizes)
    return own if options.profile is None and own in SIDES.values() and own is not None else SIDES[profile]


def _chosen_profile(options: ClassificationOptions, found: Recognised, profile: str) -> tuple[Remark, ...]:
    """Return a remark if a benchmark other than ImageNet-C was chosen by the size of the images."""
    if options.profile is not None or found.profile is None or profile == "imagenet-c":
        return ()
    side = square_side(found.sizes)
    what = f"benchmark was chosen by the size of the images: {profile} for {side} x {side} (--profile names another)"
    return (Remark("profile_by_size", what, str(found.root)),)


def _taken_as_they_are(found: Recognised, side: int) -> tuple[Remark, ...]:
    """Return a remark if some images already have the final size, so that they are neither resized nor cropped."""
    if side != SIDES["imagenet-c"] or (side, side) not in found.sizes:
        return ()
    what = (
        f"size of images is exactly {side} x {side}: such images are taken as they are, without the resizing to "
        f"{RESIZE} and the crop that images of other sizes get"
    )
    return (Remark("taken_as_they_are", what, str(found.root)),)


def _cropped_after(found: Recognised, side: int) -> Remark:
    width, height = min(found.sizes)
    what = (
        f"tree was corrupted at the images' own size, such as {width} x {height}: each is resized to 256 and its "
        f"centre of {side} x {side} cut out after the corruption, while ImageNet-C was cropped before it"
    )
    return Remark("cropped_after_corruption", what, str(found.root))
