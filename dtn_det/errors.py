"""All errors that the package raises on purpose. They distinguish mistakes of users from faults of the program.

An :class:`InputError` is about an input of the user: a file, a folder, a model or an option. Its message contains what
was expected, what was found and what to do, and programs show it without a traceback. It is also a `ValueError`, for
code that catches `ValueError`. Docstrings name the errors that a function raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtn_det.conversion.plan import NormPlan


class DtnDetError(Exception):
    """Base of all errors of the package. They can be pickled, so that worker processes can pass them on."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the error from its message and attributes, because its constructor may take other arguments."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[DtnDetError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DtnDetError:
    error = (OSError if issubclass(kind, OSError) else Exception).__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InputError(DtnDetError, ValueError):
    """A file, a folder, a model or an option of the user is unsuitable. The message says what to do."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read or does not fit the model."""


class MisfitError(CheckpointError):
    """A checkpoint of another model.

    Attributes:
        num_classes: Number of classes of the checkpoint, if nothing else differs from the model; else None.
    """

    def __init__(self, message: str, num_classes: int | None = None) -> None:
        super().__init__(message)
        self.num_classes = num_classes


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A checkpoint that does not exist."""


class ClassCountError(CheckpointError):
    """A checkpoint whose number of classes differs from that of the data."""

    def __init__(self, name: str, number: int, wanted: int) -> None:
        super().__init__(
            f"expected weights of {wanted:,} classes, got {number:,} in {name}: name a checkpoint of the data's classes"
        )
        self.name, self.number = name, number


class NoNormToConvertError(InputError):
    """A model has no norm to convert.

    Attributes:
        plan: The norms of the model, and the reason why each of them stays.
    """

    def __init__(self, message: str, plan: NormPlan) -> None:
        super().__init__(message)
        self.plan = plan


class ExportError(InputError):
    """An exported file does not reproduce the logits of the model."""


class BadImageError(InputError):
    """An image that cannot be read or corrupted."""


class SmallImageError(BadImageError):
    """An image has fewer pixels than the corruptions need."""


class UnsupportedImageError(BadImageError):
    """A valid image that corruptions do not support: more than 8 bits per channel, several frames, too many pixels."""


class AnnotationError(InputError):
    """A COCO file that cannot be evaluated. The message names the file, the object and what to do.

    Attributes:
        place: The faulty object, such as ``'annotation 17 of image 3'``; empty if the fault is in the whole file.
    """

    def __init__(self, path: Path, expected: str, got: str, place: str = "", advice: str = "mend the file") -> None:
        self.path, self.place = path, place
        where = f" in {place}" if place else ""
        super().__init__(f"expected {expected} in {path}, got {got}{where}: {advice}")


class ClassNameError(InputError):
    """Names, order or number of classes disagree. The message names the classes and their source."""


class StoreError(InputError):
    """A store of results cannot be used in the requested way."""


class UnsafePickleError(InputError):
    """A pickle file contains more than plain data."""


class DeviceMemoryError(InputError):
    """The memory of the accelerator is full."""


class CellError(InputError):
    """A result cannot be computed, because cells (a corruption at a severity) are missing, repeated or impossible.

    Attributes:
        problems: For each fault, by its description, the cells that have it.
    """

    def __init__(self, message: str, problems: dict[str, tuple[tuple[object, object], ...]]) -> None:
        super().__init__(message)
        self.problems = problems


class ReportError(InputError):
    """No report can be made from these stores or options."""


class NothingToDrawError(InputError):
    """A report lacks the data of a figure."""
