"""Weights of other projects in the names of this one: pure functions that need torch alone."""
