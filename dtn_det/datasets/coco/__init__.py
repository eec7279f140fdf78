"""COCO annotation files: one reader for all commands."""
