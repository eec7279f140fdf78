"""Checks of the data sets that a config names against its model, before anything runs."""
