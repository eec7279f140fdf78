"""DTN for vision backbones and detectors.

Importing the package registers the backbones of :mod:`dtn_det.models` with MMDetection when it is installed, and the
transform ``ImageCorruption`` with MMDetection and mmpretrain, so that ``custom_imports = dict(imports=['dtn_det'])`` is
all a config needs. :mod:`dtn_det.layers` needs torch alone.
"""

from dtn_det._registration import register

__all__ = ["__version__"]

__version__ = "0.1.0"

register()
