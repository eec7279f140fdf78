"""Evaluate several sets in one run: recognise and name each set, and find the options that apply to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dtn_det.datasets.arrays.corrupted import open_arrays
from dtn_det.datasets.folders.label_maps import CLASSES, SUBSETS, naming
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.sets import NATURAL, candidates, set_name, set_title
from dtn_det.errors import InputError
from dtn_det.robustness.classification.data import NONE, TWIN
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.set_words import check_folder_of_stores, check_names, split_set

PER_SET = ("clean", "labels", "classes", "profile", "corruptions")
"""The options that may be given for a single set, as ``NAME=VALUE``."""

_ON_DISK = ("corrupted", "array_corruptions")
_KNOWN = (
    *("imagenet", "imagenet-real", "imagenet-r", "imagenet-a", "imagenet-v2", "imagenet-sketch", "imagenet-3dcc"),
    *("imagenet-c", "imagenet-c-bar", "cifar-10", "cifar-100", "cifar-10-c", "cifar-100-c", "tiny-imagenet-c"),
)
_IN_FOLDERS = ("class_folders", "tiny_imagenet_val", "corrupted")


@dataclass(frozen=True)
class _Named:
    """A set on the command line. ``given`` is the user's name for it; if empty, the set is named as recognised."""

    given: str
    path: Path
    found: Recognised

    @property
    def natural(self) -> bool:
        """Whether this is a set of natural shifts, whose images are not corrupted."""
        return self.found.kind == "class_folders" and self.found.dataset.startswith(NATURAL)

    @property
    def validation(self) -> bool:
        """Whether this is ImageNet's validation set, to which the Real labels belong."""
        return self.found.kind == "class_folders" and self.found.dataset == "ImageNet"

    def takes(self, option: str, words: Sequence[str]) -> bool:
        """Return whether an option without the name of a set applies to this set."""
        if option == "clean":
            return self.found.kind in _ON_DISK or self.found.classes in SUBSETS
        if option == "labels":
            return self.validation
        if option == "classes":
            return self.found.kind in _IN_FOLDERS and self.found.classes not in SUBSETS
        if option == "corruptions":
            return not self.natural and not (list(words) == [NONE] and self.found.kind in _ON_DISK)
        return self.found.kind not in _ON_DISK and not self.natural


def plan_sets(
    words: Sequence[str], options: ClassificationOptions, per_set: Mapping[str, Sequence[str]]
) -> tuple[ClassificationOptions, ...]:
    """Recognise and name sets, and return the options of each set.

    An option without the name of a set applies to these sets:

    * ``clean`` to corrupted images on disk, ImageNet-R and ImageNet-A,
    * ``labels`` to ImageNet's validation set,
    * ``classes`` to class folders, except those of ImageNet-R and ImageNet-A,
    * ``profile`` to clean images, except sets of natural shifts,
    * ``corruptions`` to all sets except sets of natural shifts; ``none`` only to clean images.

    Args:
        words: The sets as the user wrote them: ``DIR`` or ``NAME=DIR``.
        options: The options of all sets. ``store`` is the folder of all stores, and ``data`` is not used.
        per_set: The words that the user wrote for each option of :data:`PER_SET`: ``VALUE`` or ``NAME=VALUE``.

    Raises:
        InputError: A set is not recognised and has no name. Two sets have the same name. A name cannot be the name of a
            folder, or is the name of another known set. An option names an unknown set, or applies to no set.
        FileNotFoundError: There is no such folder.
        StoreError: The folder of the stores is a store itself.
    """
    check_folder_of_stores(options.store)
    sets = [_read(word) for word in words]
    common = {option: [word for word in per_set.get(option, ()) if "=" not in word] for option in PER_SET}
    listed = []
    for one in sets:
        name = one.given or _own_name(one, common, per_set.get("corruptions", ()))
        _check_name(name, one, _words_of(name, per_set.get("classes", ())) or common["classes"])
        listed.append((name, one))
    check_names((name, one.path) for name, one in listed)
    named = dict(listed)
    chosen = {option: _divided(option, per_set.get(option, ()), named) for option in PER_SET}
    on_disk = all(one.found.kind in _ON_DISK for one in sets)
    return tuple(_of_set(name, one, options, chosen, on_disk) for name, one in named.items())


def _read(word: str) -> _Named:
    given, path = split_set(word)
    if given == TWIN:
        raise InputError(
            f"expected another name than {TWIN} for a set, got it in --set {word}: the store of clean images has this "
            f"name; name the set otherwise, such as --set my-set={path}"
        )
    if not path.is_dir() and path.suffix != ".parquet":
        raise FileNotFoundError(f"expected --set to be a folder of images, got {path}: there is no such folder")
    found = recognise(path)
    if found.kind == "array_corruptions":
        found = replace(found, dataset=open_arrays(path, None).dataset)
    return _Named(given, path, found)


def _own_name(one: _Named, common: Mapping[str, Sequence[str]], corruptions: Sequence[str]) -> str:
    """Return the name of a set that its files tell; ``corruptions`` are all words of this option."""
    found = one.found
    corrupted = found.kind in _ON_DISK
    real = bool(common["labels"]) and one.takes("labels", ())
    if not corrupted and not one.natural and not real:
        clean = f"{set_name(found.dataset)}={NONE}"
        corrupted = list(common["corruptions"]) != [NONE] and clean not in corruptions
    profile = (common["profile"] or [found.profile or "imagenet-c"])[0]
    name = set_name(set_title(found.dataset, profile, corrupted=corrupted, real=real))
    # Anything that is not a set of labelled images is refused later, with an error of its own.
    if not name and (corrupted or found.kind in ("class_folders", "array_images", "parquet")):
        raise InputError(
            f"expected a set that its files tell, got {found.title} in {one.path}, which may be "
            f"{', '.join(candidates(found))}: give it a name, such as --set NAME={one.path}; the names "
            f"{' and '.join(SUBSETS)} also choose these sets' classes"
        )
    return name or one.path.resolve().name


def _words_of(name: str, words: Sequence[str]) -> list[str]:
    """Return the values of the words that name this set."""
    return [value for word in words for given, sign, value in [word.partition("=")] if sign and given == name]


def _check_name(name: str, one: _Named, classes: Sequence[str]) -> None:
    """Check that a set does not have the name of another known set."""
    if name in _KNOWN and one.found.kind in _IN_FOLDERS and not one.found.dataset:
        _check_folders(name, one, classes)
    found = one.found.dataset.lower()
    # ImageNet-C and ImageNet-C-bar can be made of clean images of ImageNet.
    fitting = {found, f"{found}-c", f"{found}-c-bar", f"{found}-real"}
    if name in _KNOWN and found and name not in fitting and not found.startswith(f"{name} "):
        raise InputError(
            f"expected {name} in {one.path}, as its name says, got {one.found.title}: give it another name, or none"
        )


def _check_folders(name: str, one: _Named, classes: Sequence[str]) -> None:
    """Check that class folders of an unknown set may be those of the known set with this name."""
    own = [word for word in classes if word not in ("imagenet", name)]
    if naming(one.found.folders) == "names" and (own or "imagenet" not in classes):
        got = one.found.title
    elif own and name in SUBSETS:
        got = f"--classes {own[0]}, which numbers the classes in another way"
    else:
        return
    raise InputError(
        f"expected the classes of {name} in {one.path}, as its name says, got {got}: give the set another name, "
        f"such as --set my-set={one.path}"
    )


def _divided(option: str, words: Sequence[str], named: Mapping[str, _Named]) -> dict[str, list[str]]:
    """Divide the words of an option among the sets. Words without a set's name go under the empty name."""
    divided: dict[str, list[str]] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name in named:
            divided.setdefault(name, []).append(value)
        elif sign and not (option in ("clean", "labels") and Path(word).exists()):
            raise InputError(f"expected --{option} NAME=VALUE with a set out of {', '.join(named)}, got {word!r}")
        else:
            divided.setdefault("", []).append(word)
    common = divided.get("", [])
    if common and not any(name not in divided and one.takes(option, common) for name, one in named.items()):
        raise InputError(
            f"expected --{option} with a set that takes it, got {' '.join(common)} with {', '.join(named)}: leave it "
            f"out, or name the set that it is for, such as --{option} {next(iter(named))}={common[0]}"
        )
    return divided


def _of_set(
    name: str,
    one: _Named,
    options: ClassificationOptions,
    chosen: Mapping[str, Mapping[str, Sequence[str]]],
    on_disk: bool,
) -> ClassificationOptions:
    values: dict[str, Sequence[str]] = {}
    for option, divided in chosen.items():
        common = divided.get("", ())
        words = divided.get(name) or (common if common and one.takes(option, common) else ())
        if len(words) > 1 and option != "corruptions":
            raise InputError(f"expected --{option} once for the set {name}, got {' and '.join(words)}: leave one out")
        values[option] = words
    first = {option: words[0] if words else None for option, words in values.items()}
    if first["classes"] not in (None, *CLASSES):
        raise InputError(f"expected --classes out of {', '.join(CLASSES)}, got {first['classes']!r} for the set {name}")
    classes = first["classes"] or (name if name in SUBSETS and not one.found.dataset else None)
    corruptions = values["corruptions"] or None
    # Real labels and the classes of natural shifts are of images as they are.
    if (first["labels"] is not None or classes in SUBSETS) and name not in chosen["corruptions"]:
        corruptions = [NONE]
    if one.found.kind in _ON_DISK and not on_disk:
        # This set is corrupted already, so seed, JPEG step, textures and engine do not apply to it.
        options = replace(options, seed=0, jpeg=None, frost=None, engine=None)
    return replace(
        options,
        data=one.path,
        store=options.store / name,
        clean=None if first["clean"] is None else Path(first["clean"]),
        labels=None if first["labels"] is None else Path(first["labels"]),
        classes=classes,
        profile=first["profile"],
        corruptions=corruptions,
    )
