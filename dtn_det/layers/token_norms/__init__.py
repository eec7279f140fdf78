"""The norms of tokens that DTN is compared with, under one interface, and a factory that builds norms by name."""
