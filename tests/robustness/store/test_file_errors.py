from __future__ import annotations

import errno
import os

import pytest

from dtn_det.system.files import advice, reporting_file_errors


@pytest.mark.parametrize(
    ("number", "name", "message"),
    [
        (errno.ENOSPC, "store/x", "to read or write store/x, got: No space left on device: make room and start again"),
        (errno.EACCES, "store/x", "to read or write store/x, got: Permission denied: see who may read and write it"),
        (errno.EROFS, "store", "got: Read-only file system: see who may read and write it, or name another"),
        (errno.ENOTDIR, "a/b", "got: Not a directory: name another"),
        (errno.EMFILE, None, "to read or write a file, got: Too many open files: raise the limit of open files"),
        (errno.EIO, "x", "got: Input/output error: check the path and the disk"),
    ],
)
def test_errors_of_the_system_are_told(number, name, message):
    with pytest.raises(OSError, match=f"^expected .*{message}"), reporting_file_errors():
        raise OSError(number, os.strerror(number), name)


@pytest.mark.parametrize("error", [OSError("a message of its own"), BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_others_pass(error):
    with pytest.raises(type(error)) as caught, reporting_file_errors():
        raise error
    assert caught.value is error


def test_advice_without_a_number():
    assert advice(OSError("odd")) == "check the path and the disk"
