"""Evaluate detectors on several COCO sets in one run: name each set, and find the options that apply to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dtn_det.datasets.coco.known_sets import COCO_O, DOMAINS, domain_of, missing_domains
from dtn_det.datasets.sets import set_name
from dtn_det.errors import InputError
from dtn_det.robustness.options import DetectionOptions
from dtn_det.robustness.set_words import check_folder_of_stores, check_names, split_set
from dtn_det.robustness.store.files import folder_name


def plan_detection_sets(words: Sequence[str], options: DetectionOptions) -> tuple[DetectionOptions, ...]:
    """Name sets, and return the options of each set.

    A domain of COCO-O is called ``coco-o-sketch`` and the like, any other set by the name of its folder. A folder of
    the domains of COCO-O stands for all of them.

    Args:
        words: The sets as the user wrote them: ``DIR`` or ``NAME=DIR``.
        options: The options of all sets. ``store`` is the folder of all stores.

    Raises:
        InputError: Two sets have the same name, a name cannot be that of a folder, or an option is for one set alone.
        FileNotFoundError: There is no such folder.
        StoreError: The folder of the stores is a store itself.
    """
    given = [f"--{name.replace('_', '-')}" for name in ("data_root", "ann", "images") if getattr(options, name)]
    if given:
        raise InputError(f"expected --set alone to name the data, got {' and '.join(given)} too: leave it out")
    check_folder_of_stores(options.store)
    named = [found for word in words for found in _read(word)]
    check_names(named)
    return tuple(replace(options, data_root=str(folder), store=options.store / name) for name, folder in named)


def _read(word: str) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of a set, or of each domain in the folder of COCO-O."""
    given, folder = split_set(word)
    if not folder.is_dir():
        raise FileNotFoundError(f"expected --set to be the folder of a COCO set, got {folder}: there is no such folder")
    there = [name for name in DOMAINS if name not in missing_domains(folder)]
    if there and not (folder / "annotations").is_dir() and not any(folder.glob("*.json")):
        if missing := missing_domains(folder):
            raise InputError(
                f"expected the six domains of {COCO_O} in {folder}, got none of {', '.join(missing)}: fetch them, or "
                f"name those that are there one by one, such as --set {folder / there[0]}"
            )
        for name in DOMAINS:
            yield set_name(f"{given or COCO_O} {name}"), folder / name
        return
    domain = domain_of(folder)
    yield given or (set_name(f"{COCO_O} {domain}") if domain else folder_name(folder.resolve().name)), folder
