"""Layers: torch alone is enough to import them."""

from dtn_det.layers.dtn import DTN

__all__ = ["DTN"]
