"""The data sets that a config names, checked against its model before anything runs."""
