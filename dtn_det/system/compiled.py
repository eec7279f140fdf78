"""Decorators that compile inner loops with numba and cache the machine code on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from dtn_det._optional import require

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function with numba at its first call. Later processes read the machine code from the cache.

    The compiled code runs without Python's global interpreter lock. It may fuse multiplications with additions, but it
    does not reorder sums, so results do not depend on how the function is called.
    """
    numba = require("numba", "corruptions")
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function))


def compiled_exactly(function: F) -> F:
    """Compile a function like :func:`compiled`, but without fusing multiplications and additions.

    So the results have the same bits as the same operations in numpy, or in C compiled without fusing.
    """
    numba = require("numba", "eval")
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
