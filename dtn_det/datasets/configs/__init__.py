"""The data sets that a config names, held against its model before anything runs."""
