"""Weights of other projects in the names of this one; torch is all they need, and safetensors for its files."""
