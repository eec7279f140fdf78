"""Checkpoints of any library: read, unwrapped, held against a model; it takes torch and numpy, and safetensors."""
