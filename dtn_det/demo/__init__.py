"""The demonstration: generate a detection set, train a DTN detector and a LayerNorm detector, and compare them."""
