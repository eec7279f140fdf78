"""The normalisers that DTN is compared with, for tokens."""
