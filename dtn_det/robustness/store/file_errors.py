"""Errors of files and disks in words that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

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


def advice(error: OSError) -> str:
    """What to do about an error of the system."""
    return _ADVICE.get(error.errno or 0, "check the path and the disk")


@contextmanager
def file_errors_told() -> Iterator[None]:
    """Within the block, say of each error of the system what was expected and what to do.

    Raises:
        OSError: In place of one with a number of the system.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # One without a number was raised with a message of its own.
        if error.errno is None:
            raise
        place = error.filename if error.filename is not None else "a file"
        raise OSError(f"expected to read or write {place}, got: {error.strerror}: {advice(error)}") from error
