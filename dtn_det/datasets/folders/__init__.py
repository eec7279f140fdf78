"""Folders of images: what a folder is, its classes, its corruptions, and its files."""
