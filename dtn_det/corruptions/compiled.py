"""The compiler of the inner loops, see :mod:`dtn_det._compiled`."""

from dtn_det._compiled import compiled

__all__ = ["compiled"]
