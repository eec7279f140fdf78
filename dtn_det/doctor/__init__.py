"""The subcommand `doctor`: it reports what is installed, whether it works, and how to repair what does not."""
