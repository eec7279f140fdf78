"""Errors of checkpoints: what is wrong with a file, told apart from what is wrong with the program."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message says what to do."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A checkpoint that is not there."""
