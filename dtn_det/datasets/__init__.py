"""Readers of annotation files and class folders: no other module decides what a file or folder means."""
