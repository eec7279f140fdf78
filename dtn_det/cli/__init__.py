"""The `dtn-det` command: one module a subcommand."""
