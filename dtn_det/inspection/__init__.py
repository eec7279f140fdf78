"""A look inside a trained model: gates, positional kernels, token magnitudes, attention.

:func:`load_subject` prepares a model and an image, and :func:`look` runs the model once and returns all that figures
and tables need. :mod:`dtn_det.inspection.write` makes the figures and tables, and needs the extra ``report``.
"""

from dtn_det.inspection.forward_pass import BlockLook, Looks, NormLook, look
from dtn_det.inspection.subject import Subject, load_subject

__all__ = ["BlockLook", "Looks", "NormLook", "Subject", "load_subject", "look"]
