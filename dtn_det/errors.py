"""All errors that the package raises on purpose, so that mistakes of users can be told from faults of the program.

An :class:`InputError` is about something that the user gave: a file, a folder, a model or an option. Its message says
what was expected, what was found and what to do, and programs show it without a traceback. It is also a `ValueError`,
for code that catches those. The functions that raise these errors name them in their docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtn_det.conversion.plan import NormPlan


class DtnDetError(Exception):
    """Base of all errors that the package defines; all can be pickled, so that worker processes can pass them on."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the error from its message and attributes, whatever arguments its class takes."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[DtnDetError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DtnDetError:
    error = (OSError if issubclass(kind, OSError) else Exception).__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InputError(DtnDetError, ValueError):
    """A file, a folder, a model or an option of the user that does not fit; the message says what to do."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read or does not fit the model."""


class MisfitError(CheckpointError):
    """A checkpoint of another model.

    Attributes:
        num_classes: Number of classes of the checkpoint, if it is all that differs from the model; else None.
    """

    def __init__(self, message: str, num_classes: int | None = None) -> None:
        super().__init__(message)
        self.num_classes = num_classes


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A checkpoint that does not exist."""


class ClassCountError(CheckpointError):
    """A checkpoint whose number of classes is not that of the data."""

    def __init__(self, name: str, number: int, wanted: int) -> None:
        super().__init__(
            f"expected weights of {wanted:,} classes, got {number:,} in {name}: name a checkpoint of the data's classes"
        )
        self.name, self.number = name, number


class NoNormToConvertError(InputError):
    """A model has no norm that a conversion would replace.

    Attributes:
        plan: The norms of the model, and why each of them stays.
    """

    def __init__(self, message: str, plan: NormPlan) -> None:
        super().__init__(message)
        self.plan = plan


class ExportError(InputError):
    """An exported file does not give the same logits as the model."""


class BadImageError(InputError):
    """An image that cannot be read or corrupted."""


class AnnotationError(InputError):
    """A COCO file that cannot be evaluated; the message names the file, the object and what to do.

    Attributes:
        place: The object, such as ``'annotation 17 of image 3'``; empty if the fault is in the file as a whole.
    """

    def __init__(self, path: Path, expected: str, got: str, place: str = "", advice: str = "mend the file") -> None:
        self.path, self.place = path, place
        where = f" in {place}" if place else ""
        super().__init__(f"expected {expected} in {path}, got {got}{where}: {advice}")


class ClassNameError(InputError):
    """Names, order or number of classes disagree; the message says where and which."""


class StoreError(InputError):
    """A store of results that cannot be used as asked."""


class UnsafePickleError(InputError):
    """A pickle file that asks for more than plain data."""


class DeviceMemoryError(InputError):
    """The memory of the accelerator is full."""


class CellError(InputError):
    """A number cannot be computed, because cells (a corruption at a severity) are missing, repeated or impossible.

    Attributes:
        problems: The cells of each fault, by the description of the fault.
    """

    def __init__(self, message: str, problems: dict[str, tuple[tuple[object, object], ...]]) -> None:
        super().__init__(message)
        self.problems = problems


class ReportError(InputError):
    """Stores or options from which no report can be made."""


class NothingToDrawError(InputError):
    """A report lacks what a figure would show."""
