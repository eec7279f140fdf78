"""The operator behind DTN: one interface, compiled CPU kernels and Triton kernels behind it."""
