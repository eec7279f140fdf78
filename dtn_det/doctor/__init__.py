"""The subcommand `doctor`: what is installed, whether it works, and the command that mends what does not."""
