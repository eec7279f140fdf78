"""Files that are either complete or absent, and folders that one process has for itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtn_det.errors import InputError

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a kill or a power failure on the way leaves the old file or none, never half of one.

    What is being written has another name in the same folder, see :func:`is_temporary`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made from the file's name, which may be as long as the file system allows.
    temporary = path.with_name(f".{secrets.token_hex(8)}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` for JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that :func:`write_bytes` uses on the way: what a kill leaves behind."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Make a folder and keep other processes out of it; the lock goes with the process that holds it.

    Args:
        folder: The folder.
        option: The option that named it, for the messages.

    Raises:
        ValueError: It is a file, or another process holds the lock.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected {option} to be a folder, got the file {folder}: name another")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"expected to be alone in {folder}, got another dtn-det at work there: wait for it, or name another "
                f"folder with {option}"
            ) from None
        yield
    finally:
        os.close(descriptor)
