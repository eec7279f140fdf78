"""The baselines of corruption errors: AlexNet's errors, which ship with the package, or the errors of any model."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import EXTRA, SEVERITIES
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.errors import InputError
from dtn_det.metrics.cells import CorruptionSet, checked_cells, raise_problems

ALEXNET_ERRORS = MappingProxyType(
    {
        "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
        "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
        "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
        "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
        "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
        "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
        "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
        "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
        "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
        "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
        "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
        "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
        "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
        "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
        "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    }
)
"""Top-1 errors of torchvision's AlexNet at severities 1 to 5, published by the authors of ImageNet-C in
github.com/hendrycks/robustness, issue 10. Their means over the severities are the constants in the literature."""

ALEXNET_EXTRA_ERRORS = MappingProxyType(
    {"speckle_noise": 0.845388, "gaussian_blur": 0.787108, "spatter": 0.717512, "saturate": 0.658248}
)
"""AlexNet's mean top-1 errors over the severities of the hold-out corruptions; single severities are not published.
Source: github.com/facebookresearch/augmentation-corruption, baseline_data/mCE_baseline_imagenet.p."""

ALEXNET_3DCC_ERRORS = MappingProxyType(
    {
        "near_focus": (0.5384, 0.5808, 0.6178, 0.6446, 0.6718),
        "far_focus": (0.5278, 0.6098, 0.6686, 0.7100, 0.7414),
        "bit_error": (0.5568, 0.6000, 0.6728, 0.7370, 0.8502),
        "color_quant": (0.4490, 0.4612, 0.4982, 0.6694, 0.9032),
        "flash": (0.7142, 0.7520, 0.7918, 0.8440, 0.9042),
        "fog_3d": (0.5626, 0.7192, 0.8148, 0.8672, 0.9040),
        "h265_abr": (0.5020, 0.5164, 0.5506, 0.6374, 0.6306),
        "h265_crf": (0.4972, 0.4988, 0.5114, 0.5504, 0.5682),
        "iso_noise": (0.8692, 0.8948, 0.9342, 0.9714, 0.9880),
        "low_light": (0.7168, 0.7636, 0.8126, 0.8754, 0.9440),
        "xy_motion_blur": (0.6972, 0.7910, 0.8470, 0.8844, 0.9046),
        "z_motion_blur": (0.7208, 0.7692, 0.8070, 0.8340, 0.8484),
    }
)
"""Top-1 errors of AlexNet at severities 1 to 5 of ImageNet-3DCC, on 5,000 images, published by RobustBench:
github.com/RobustBench/robustbench, model_info/imagenet/corruptions/unaggregated_results_3d.csv."""

ALEXNET_3DCC_CLEAN_ERROR = 0.4376
"""AlexNet's top-1 error on the same 5,000 clean images: RobustBench's clean accuracy is 56.24 %."""

ALEXNET_CLEAN_ERROR = 0.43478
"""AlexNet's top-1 error on clean images: torchvision's top-1 accuracy is 56.522 %.
google-research/robustness_metrics uses 0.4348; facebookresearch/augmentation-corruption uses 0.435."""

BASELINES = ("alexnet",)
"""Names of the baselines that ship with the package."""


@dataclass(frozen=True)
class Baseline:
    """The errors of a baseline on the corrupted cells that a model was evaluated on.

    Attributes:
        errors: Error on each cell, (cells,).
        clean: The clean error; None for a table without a clean row.
    """

    name: str
    errors: NDArray[np.float64]
    clean: float | None


def baseline_frame(name: str) -> pd.DataFrame:
    """Return a named baseline's errors as a tidy table: the clean images first, then each corruption and severity.

    The table of AlexNet lacks the extra corruptions, of which only the means over the severities are known.

    Raises:
        InputError: The name is unknown.
    """
    _check_name(name)
    rows = [(*CLEAN, ALEXNET_CLEAN_ERROR)]
    for corruption, errors in ALEXNET_ERRORS.items():
        rows += [(corruption, severity, error) for severity, error in zip(SEVERITIES, errors, strict=True)]
    return pd.DataFrame(rows, columns=["corruption", "severity", "error"])


def resolve_baseline(
    baseline: str | pd.DataFrame,
    cells: tuple[Cell, ...],
    *,
    corruptions: CorruptionSet,
    needs_clean: bool,
    num_images: int | None,
    column: str = "error",
) -> Baseline:
    """Find the errors of a baseline on given cells.

    Args:
        baseline: Name of a baseline, or the table of an evaluated model with the columns `corruption`, `severity`,
            `column` and, where known, `num_images`.

    Raises:
        CellError: The baseline lacks cells that the model has, or its table has faulty rows.
        InputError: The name is unknown, `column` is not `error` although the baseline is given by name, or the baseline
            was evaluated on another number of images.
    """
    if isinstance(baseline, str):
        _check_name(baseline)
        if column != "error":
            raise InputError(
                f"expected a table as the baseline of `{column}`, got {baseline!r}, which has top-1 errors"
            )
        return Baseline(baseline, alexnet_errors(cells), alexnet_clean_error(cells))
    what = "the baseline"
    found = checked_cells(
        baseline, column, corruptions=corruptions, needs_clean=needs_clean, allow_partial=True, what=what
    )
    raise_problems(what, {"missing": [cell for cell in cells if cell not in found.cells]})
    if None not in (num_images, found.num_images) and num_images != found.num_images:
        raise InputError(
            f"expected a baseline of the model's {num_images} images, got one of {found.num_images}: "
            "evaluate both on the same images"
        )
    errors = dict(zip(found.cells, found.values, strict=True))
    return Baseline("table", np.array([errors[cell] for cell in cells]), found.clean)


def alexnet_errors(cells: tuple[Cell, ...]) -> NDArray[np.float64]:
    """Return AlexNet's errors on given cells; for an extra corruption, every severity gets the mean over all five.

    Raises:
        CellError: Not all five severities of an extra corruption are among the cells, so that the mean does not apply.
    """
    if _of_3dcc(cells):
        return np.array([ALEXNET_3DCC_ERRORS[name][severity - 1] for name, severity in cells])
    unknown = [cell for cell in cells if cell[0] not in (*ALEXNET_ERRORS, *EXTRA)]
    raise_problems("AlexNet (errors are published for ImageNet-C and ImageNet-3DCC alone)", {"missing": unknown})
    short = [cell for cell in cells if cell[0] in EXTRA and any((cell[0], level) not in cells for level in SEVERITIES)]
    raise_problems(
        "AlexNet (of the extra corruptions only means over all severities are published)", {"missing": short}
    )
    return np.array(
        [
            ALEXNET_EXTRA_ERRORS[name] if name in EXTRA else ALEXNET_ERRORS[name][severity - 1]
            for name, severity in cells
        ]
    )


def alexnet_clean_error(cells: tuple[Cell, ...]) -> float:
    """Return AlexNet's clean error, measured on the same images as its errors on these corrupted cells."""
    return ALEXNET_3DCC_CLEAN_ERROR if _of_3dcc(cells) else ALEXNET_CLEAN_ERROR


def _of_3dcc(cells: tuple[Cell, ...]) -> bool:
    return bool(cells) and all(name in ALEXNET_3DCC_ERRORS for name, _ in cells)


def _check_name(name: str) -> None:
    if name not in BASELINES:
        raise InputError(
            f"expected a table of errors or the name of a baseline out of {', '.join(BASELINES)}, got {name!r}"
        )
