"""Weights of other projects in the names of this one; it takes torch and numpy, and safetensors for such files."""
