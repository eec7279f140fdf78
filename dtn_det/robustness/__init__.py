"""Robustness evaluation: classifiers and detectors under every corruption, complete and resumable."""
