"""The nineteen corruptions, one file for each kind, and what all of them need installed."""

from dtn_det._optional import require

for _module in ("PIL", "cv2", "numba", "scipy"):
    require(_module, "corruptions")
