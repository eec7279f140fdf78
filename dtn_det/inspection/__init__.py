"""A look inside a trained model: gates, positional kernels, token magnitudes, attention."""

from dtn_det.inspection.forward_pass import BlockLook, Looks, NormLook, look
from dtn_det.inspection.subject import Subject, load_subject

__all__ = ["BlockLook", "Looks", "NormLook", "Subject", "load_subject", "look"]
