"""What a user means by two models: stores, names, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.errors import ReportError
from dtn_det.reports.pairs import find_pairs
from dtn_det.reports.sources import open_sources

_HOW = "name them as STORE A B, STORE:A STORE:B, or --store STORE A B"


@dataclass(frozen=True)
class Targets:
    """Two models to compare.

    Attributes:
        stores: As :func:`dtn_det.reports.collect.collect` takes them.
        first: Name of a model in the report of these stores.
        second: Name of the other.
    """

    stores: tuple[str, ...]
    first: str
    second: str


def find_targets(words: Sequence[str], store: str | Path | None = None) -> Targets:
    """Find two models.

    Args:
        words: ``A B`` with ``store``; ``STORE`` with two models (the LayerNorm twin first, where they are twins);
            ``STORE A B``; ``STORE:A STORE:B``; ``STORE:A B`` of the same store; or two stores with a model each.
        store: Folder of both.

    Raises:
        ReportError: Not two models, or unknown ones.
    """
    if store is not None:
        return _of_one_store(str(store), words)
    if words and _is_store(words[0]) and len(words) in (1, 3):
        return _of_one_store(words[0], words[1:])
    if len(words) != 2:
        raise ReportError(f"expected two models, got {' '.join(words) or 'nothing'}: {_HOW}")
    (one, first), (other, second) = _split(words[0]), _split(words[1])
    other = other or one
    if not one or not other:
        raise ReportError(f"expected a folder with results, got {words[0]!r}: {_HOW}")
    first, second = first or _only_model(one), second or _only_model(other)
    if Path(one).resolve() == Path(other).resolve():
        return _of_one_store(one, (first, second))
    return _of_two_stores((one, other), (first, second))


def _of_one_store(store: str, names: Sequence[str]) -> Targets:
    known = _models(store)
    if not names and len(known) == 2:
        return Targets((store,), *find_pairs(known)[0])
    if len(names) != 2 or names[0] == names[1]:
        raise ReportError(f"expected two models out of {', '.join(known)}, got {', '.join(names) or 'none'}: {_HOW}")
    for name in names:
        _check_known(store, name, known)
    return Targets((store,), names[0], names[1])


def _of_two_stores(stores: tuple[str, str], names: tuple[str, str]) -> Targets:
    known = [_models(store) for store in stores]
    for store, name, own in zip(stores, names, known, strict=True):
        _check_known(store, name, own)
    if not set(known[0]) & set(known[1]):
        return Targets(stores, *names)
    # Models of one name are told apart by their stores.
    folders = [Path(store).resolve().name for store in stores]
    labels = folders if folders[0] != folders[1] else ["first", "second"]
    labelled = tuple(f"{label}={store}" for label, store in zip(labels, stores, strict=True))
    return Targets(labelled, f"{labels[0]}/{names[0]}", f"{labels[1]}/{names[1]}")


def _split(word: str) -> tuple[str, str]:
    """Store and model of ``STORE``, ``STORE:MODEL`` or ``MODEL``; either may be empty."""
    if _is_store(word):
        return word, ""
    for place, sign in enumerate(word):
        if sign == ":" and _is_store(word[:place]):
            return word[:place], word[place + 1 :]
    return "", word


def _is_store(text: str) -> bool:
    return Path(text).is_dir()


def _models(store: str) -> list[str]:
    return list(open_sources([store]).models)


def _only_model(store: str) -> str:
    known = _models(store)
    if len(known) != 1:
        raise ReportError(f"expected a store with one model, got {store} with {', '.join(known)}: {_HOW}")
    return known[0]


def _check_known(store: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ReportError(f"expected a model out of {', '.join(known)} in {store}, got {name!r}")
