"""The `dtn-det` command: a module for each subcommand."""
