"""Find out whether the mean and standard deviation of a normalisation are for pixels from 0 to 1 or from 0 to 255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

# For pixels from 0 to 1, the largest mean in timm is 0.5. The largest standard deviation is 1 in timm, and 1.25 in
# mmpretrain's EfficientNets. For pixels from 0 to 255, the smallest mean above 0 in configs of mmpretrain and
# MMDetection is 32, and the smallest standard deviation is 1, in Caffe's models.
_LARGEST_MEAN, _LARGEST_STD = 1.0, 1.5
_SMALLEST_MEAN, _SMALLEST_STD = 2.0, 1.0


def check_unit_range(mean: Sequence[float], std: Sequence[float], where: str, advice: str) -> None:
    """Check that a mean and a standard deviation can be for pixels from 0 to 1.

    Args:
        where: The model or the file that has these values, as the end of the phrase "of pixels from 0 to 1 ...".
        advice: What to do with the right values, such as ``'pass'`` or ``'write into FILE'``. The message lists the
            values after this text.

    Raises:
        InputError: A mean is above 1, or a standard deviation above 1.5.
    """
    large_mean, large_std = max(mean) > _LARGEST_MEAN, max(std) > _LARGEST_STD
    if not large_mean and not large_std:
        return
    # A mean of 0 does not show the range, and Caffe's models have a standard deviation of 1 beside means near 100.
    of_bytes = (large_mean or not any(mean)) and (large_std or min(std) >= _SMALLEST_STD)
    right = f"mean={_shown(mean, 255)}, std={_shown(std, 255)}, which are these divided by 255"
    raise InputError(
        f"expected mean and std of pixels from 0 to 1 {where}, got mean={_shown(mean)} and std={_shown(std)}, "
        + (
            f"those of pixels from 0 to 255: {advice} {right}"
            if of_bytes
            else f"of two ranges: {advice} both of 0 to 1"
        )
    )


def small_for_bytes(settings: Any, where: str, name: str = "data_preprocessor") -> tuple[Remark, ...]:
    """Return a remark if the mean or deviation of a step, which gets pixels from 0 to 255, is small.

    Small values are not refused, because a model must be evaluated with the values that it was trained with.

    Args:
        settings: The settings of the step, with ``mean`` and ``std``.
        where: Path of the config.
        name: What configs call the step.
    """
    given = [settings.get(key) if isinstance(settings, Mapping) else None for key in ("mean", "std")]
    mean, std = ([float(one) for one in value] if isinstance(value, list | tuple) else [] for value in given)
    small_mean = any(mean) and max(map(abs, mean)) < _SMALLEST_MEAN
    small_std = bool(std) and min(std) < _SMALLEST_STD
    if not small_mean and not small_std:
        return ()
    what = (
        f"{name} has mean={_shown(mean)} and std={_shown(std)}, as for pixels from 0 to 1, but gets pixels "
        "from 0 to 255: this is right only if the training had the same values"
    )
    return (Remark("small_mean_and_std", what, where),)


def _shown(values: Sequence[float], divisor: float = 1) -> str:
    texts = [f"{value / divisor:.6g}" for value in values]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"
