"""The implementations of the corruptions, one file per kind; they need the extra ``corruptions``."""

from dtn_det._optional import require

for _module in ("PIL", "cv2", "numba", "scipy"):
    require(_module, "corruptions")
