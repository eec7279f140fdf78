"""The nineteen corruptions, one file for each kind."""
