"""The numbers of a store of classifiers: corruption errors against a baseline, with what is partial about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA
from dtn_det.datasets.remarks import counted
from dtn_det.errors import StoreError
from dtn_det.metrics import mean_corruption_error, mean_error, relative_mean_corruption_error
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.classification import chance_remark, is_at_chance
from dtn_det.metrics.formulas import Summary
from dtn_det.robustness.classification.baseline import ALEXNET
from dtn_det.robustness.classification.progress import Tally, tally
from dtn_det.robustness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassifierResult:
    """One model's numbers.

    Attributes:
        name: Of the model.
        frame: Its errors: see :meth:`dtn_det.robustness.classification.progress.Tally.frame`.
        errors: Mean errors, by set of corruptions.
        corruption_errors: mCE, by set of corruptions; empty without a baseline.
        relative: Relative mCE, likewise, where there are clean images.
        partial: Why these are not the numbers of the whole data set, or nothing.
        bad: What is wrong with each image that was left out.
        undefined: Why a corruption error has no value, or nothing.
    """

    name: str
    frame: pd.DataFrame
    errors: Mapping[CorruptionSet, Summary]
    corruption_errors: Mapping[CorruptionSet, Summary]
    relative: Mapping[CorruptionSet, Summary]
    partial: str
    bad: Sequence[str]
    undefined: str

    @property
    def clean_error(self) -> float | None:
        """Of the clean images."""
        rows = self.frame[self.frame["severity"] == 0]["error"]
        return float(rows.iloc[0]) if len(rows) else None


def results(store: Store, names: Sequence[str], baseline: str | None) -> list[ClassifierResult]:
    """The numbers of models.

    Args:
        store: With their records.
        names: Of the models.
        baseline: ``'alexnet'``, the name of a model in the store, or None for no corruption errors.

    Raises:
        StoreError: A model or the baseline is not in the store, or has no records.
    """
    tallies = {name: tally(store.model(name)) for name in names}
    against: str | pd.DataFrame | None = baseline
    if baseline is not None and baseline != ALEXNET:
        if baseline not in store.models():
            raise StoreError(
                f"expected --baseline to be {ALEXNET} or a model of the store ({', '.join(store.models())}), got "
                f"{baseline!r}: evaluate it into this store first"
            )
        against = (tallies.get(baseline) or tally(store.model(baseline))).frame()
    return [_result(store, name, counts, against) for name, counts in tallies.items()]


def _result(store: Store, name: str, counts: Tally, baseline: str | pd.DataFrame | None) -> ClassifierResult:
    frame = counts.frame()
    if frame.empty:
        raise StoreError(
            f"expected records of {name!r} in {store.folder}, got none: evaluate it, or see its bad images"
        )
    sets: list[CorruptionSet] = []
    present = set(frame["corruption"])
    if present & set(BENCHMARK):
        sets.append("benchmark")
    if present & set(EXTRA):
        sets.append("extra")
    errors = {which: mean_error(frame, corruptions=which, allow_partial=True) for which in sets}
    mean: dict[CorruptionSet, Summary] = {}
    relative: dict[CorruptionSet, Summary] = {}
    undefined = []
    guesses = _guesses(store, frame, "the model")
    if not guesses and not (baseline is None or isinstance(baseline, str)):
        guesses = _guesses(store, baseline, "the baseline")
    if guesses and baseline is not None:
        undefined.append(guesses)
    for which in sets:
        if baseline is None:
            break
        try:
            mean[which] = mean_corruption_error(frame, baseline, corruptions=which, allow_partial=True)
            if "clean" in present and not guesses:
                relative[which] = relative_mean_corruption_error(frame, baseline, corruptions=which, allow_partial=True)
        # Few images may leave the baseline without an error, and its own run may have stopped on the way.
        except ValueError as error:
            undefined.append(str(error))
    bad = [counts.bad[number] for number in sorted(counts.bad)]
    return ClassifierResult(
        name, frame, errors, mean, relative, _partial(store, name, counts), bad, "; ".join(undefined)
    )


def _guesses(store: Store, frame: pd.DataFrame, who: str) -> str:
    """Why a model that is no better than chance has no relative mCE, or nothing."""
    clean = frame[frame["severity"] == 0]
    num_classes = int(store.manifest.protocol.get("num_classes", "0"))
    if not len(clean) or num_classes < 2:
        return ""
    error, images = float(clean["error"].iloc[0]), int(clean["num_images"].iloc[0])
    return chance_remark(error, who) if is_at_chance(error, images, num_classes) else ""


def _partial(store: Store, name: str, counts: Tally) -> str:
    manifest = store.manifest
    reasons = [] if manifest.selection == "all" else [manifest.selection]
    answered = int(counts.images.max())
    reasons += [f"{remark.count:,} {remark.what}" for remark in manifest.remarks if remark.partial]
    if store.model(name).pending():
        reasons.append(f"{answered:,} of {counted(manifest.num_images, 'image')} so far")
    if counts.bad:
        reasons.append(f"{counted(len(counts.bad), 'bad image')} left out")
    return f"partial ({', '.join(reasons)})" if reasons else ""
