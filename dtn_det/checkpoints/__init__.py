"""Checkpoints of any library: how they are read, freed of wrappers, compared with a model, and loaded.

The package needs torch and numpy, and safetensors for files of that format.
"""
