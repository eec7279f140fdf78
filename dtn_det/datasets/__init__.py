"""Readers of annotation files and class folders. No other package decides what a file or folder means."""
