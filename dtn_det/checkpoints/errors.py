"""Errors of checkpoints: what is wrong with a file, told apart from what is wrong with the program."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message says what to do."""


class MisfitError(CheckpointError):
    """A checkpoint of another model.

    Attributes:
        num_classes: Rows of the last layer in the checkpoint, where this is all in which it differs.
    """

    def __init__(self, message: str, num_classes: int | None = None) -> None:
        super().__init__(message)
        self.num_classes = num_classes


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A checkpoint that is not there."""
