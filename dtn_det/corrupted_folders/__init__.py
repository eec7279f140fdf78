"""Corrupted copies of image folders, called trees: layouts, workers, size estimates and manifests."""
