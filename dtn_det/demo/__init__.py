"""The demonstration: a detection set, a DTN detector and its LayerNorm twin trained on it, and their comparison."""
