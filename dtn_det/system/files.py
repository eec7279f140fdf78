"""Write files completely or not at all, lock folders, and give advice on errors of the operating system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtn_det.errors import InputError

_FULL = "make room and start again, which continues"
_FORBIDDEN = "see who may read and write it, or name another"
_OTHER_KIND = "name another"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.EEXIST: _OTHER_KIND,
    errno.EISDIR: _OTHER_KIND,
    errno.ENOTDIR: _OTHER_KIND,
    errno.ENAMETOOLONG: "take a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or take fewer --workers",
}

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: a kill or a power failure leaves the old file, the new file or no file.

    Until the file is complete, it has a temporary name in the same folder: see :func:`is_temporary`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name is not derived from the file's name, which may already have the greatest allowed length.
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
    """Write text in UTF-8, with the guarantee of :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, with the guarantee of :func:`write_bytes`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def is_temporary(name: str) -> bool:
    """Return whether a name is a temporary name of :func:`write_bytes`, as on a file left by a killed process."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Create a folder if it does not exist, and lock it against other processes during the block.

    A lock ends with its process, also if the process is killed.

    Args:
        option: Name of the user's option for the folder, for messages.

    Raises:
        ValueError: The path is a file, or another process holds the lock.
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


def advice(error: OSError) -> str:
    """Return advice on an error of the operating system."""
    return _ADVICE.get(error.errno or 0, "check the path and the disk")


@contextlib.contextmanager
def reporting_file_errors() -> Iterator[None]:
    """Replace errors of the operating system within the block by errors whose messages say what to do.

    Raises:
        OSError: The system reported an error number. The message says what to do.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # An error without a number was raised by a program and has its own message.
        if error.errno is None:
            raise
        place = error.filename if error.filename is not None else "a file"
        raise OSError(f"expected to read or write {place}, got: {error.strerror}: {advice(error)}") from error
