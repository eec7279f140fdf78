"""What a trained model looks like inside: gates, positional kernels, token magnitudes, attention."""
