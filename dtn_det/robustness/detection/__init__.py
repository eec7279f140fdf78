"""Detectors under every corruption: mPC on COCO-C."""
