"""Former place of :func:`dtn_det.inspection.look`."""

from dtn_det.inspection import Looks, look

__all__ = ["Looks", "look"]
