"""Checkpoints of any library: reading them, removing wrappers, comparing weights with a model, and loading them.

The package needs torch and numpy, and safetensors for files of that format.
"""
