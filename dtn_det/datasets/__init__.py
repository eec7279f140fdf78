"""Readers of annotation files and class folders: the only places that decide what a file or folder means."""
