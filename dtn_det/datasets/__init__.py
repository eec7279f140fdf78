"""Readers of annotation files and class folders. Only they decide what a file or folder means."""
