"""Corrupted copies of image folders: layouts, workers, size estimates and manifests."""
