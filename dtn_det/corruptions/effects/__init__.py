"""The nineteen corruptions, one file for each kind; all of them need the extra ``corruptions``."""

from dtn_det._optional import require

for _module in ("PIL", "cv2", "numba", "scipy"):
    require(_module, "corruptions")
