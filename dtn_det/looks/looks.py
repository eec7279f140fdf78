"""Former place of :func:`dtn_det.inspection.look.look`."""

from dtn_det.inspection.look import Looks, look

__all__ = ["Looks", "look"]
