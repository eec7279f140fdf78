"""Checks of the settings of encoders and classifiers."""

from __future__ import annotations

from dtn_det.errors import InputError


def check_integers(least: int = 1, **values: int) -> None:
    """See that settings are integers, and not too small.

    Args:
        least: The smallest that is allowed.
        **values: By the names of the settings.

    Raises:
        InputError: One is not.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(
                f"expected {name} to be an integer of at least {least}, got {value!r}: change it in the config"
            )


def check_rate(**values: float) -> None:
    """See that rates of dropout leave something.

    Raises:
        InputError: One is not from 0 to below 1.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(
                f"expected {name} from 0 to below 1, got {value!r}: change it in the config, 0 drops nothing"
            )
