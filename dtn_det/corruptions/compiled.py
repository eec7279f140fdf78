"""The compiler of the inner loops, see :mod:`dtn_det.system.compiled`."""

from dtn_det.system.compiled import compiled

__all__ = ["compiled"]
