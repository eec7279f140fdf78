"""The subcommand `doctor`: report what is installed and whether it works, and say how to repair it."""
