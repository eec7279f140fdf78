"""Processes that start with the libraries loaded: forks of a process that has imported them once.

A fresh interpreter takes seconds to import MMDetection. Tests of programs in processes of their own, which are killed
or work together, start them here; tests of what an import does need a fresh interpreter. Each process computes with one
thread and sees no GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("warm_server.py")
PR_SET_CHILD_SUBREAPER = 36


class WarmPython:
    """Starts Python programs in forks of a process that has imported what :meth:`load` has named so far.

    Elsewhere than on Linux, they start in fresh interpreters.
    """

    def __init__(self) -> None:
        self._loaded: set[str] = set()
        self._server: int | None = None
        if sys.platform != "linux":
            return
        self._socket, theirs = _sockets()
        with theirs:
            server = subprocess.Popen(
                [sys.executable, str(SERVER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._server, server.returncode = server.pid, 0  # waited for below

    def branch(self) -> WarmPython:
        """Another one that has imported the same modules, which imports more without changing this one."""
        other = WarmPython.__new__(WarmPython)
        other._loaded, other._server = set(self._loaded), None
        if self._server is not None:
            other._socket, theirs = _sockets()
            with theirs:
                other._server = self._fork({"branch": True}, [theirs.fileno()])
        return other

    def load(self, *modules: str) -> WarmPython:
        """Have modules imported, whose names are given, before the next program starts."""
        wanted = [name for name in modules if name not in self._loaded]
        if wanted and self._server is not None:
            self._ask({"load": wanted})
        self._loaded.update(wanted)
        return self

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """As ``subprocess.Popen([sys.executable, *arguments], **options)``."""
        if self._server is None:
            return subprocess.Popen([sys.executable, *arguments], **options)
        return _WarmProcess(self, [sys.executable, *arguments], **options)

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program to its end and keep what it prints, as text."""
        timeout = options.pop("timeout", 300)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        with self.popen(arguments, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def fork(
        self, arguments: Sequence[str], cwd: Any, env: Mapping[str, str] | None, streams: Sequence[int], session: bool
    ) -> int:
        """Start a program on the file descriptors of its standard streams; the id of the process, a child of ours."""
        request = {
            "arguments": list(map(os.fspath, arguments)),
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": session,
        }
        return self._fork(request, streams)

    def _fork(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        # The parent of the new process ends, and the next one above it that takes in orphans inherits it.
        _take_in_orphans(True)
        try:
            return self._ask(request, descriptors)
        finally:
            _take_in_orphans(False)

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        answer = json.loads(self._socket.recv(1 << 20) or '{"failed": "it has ended"}')
        if isinstance(answer, dict):
            raise RuntimeError(f"expected {SERVER.name} to serve {str(request)[:200]}, got: {answer['failed']}")
        return answer

    def close(self) -> None:
        """End the process from which the programs start; they go on."""
        if self._server is not None:
            self._socket.close()
            os.waitpid(self._server, 0)


class _WarmProcess(subprocess.Popen):
    """A process that starts as a fork; everything else is as with any other."""

    def __init__(self, python: WarmPython, *arguments: Any, **options: Any) -> None:
        self._python = python
        super().__init__(*arguments, **options)

    def _execute_child(self, args: Any, executable: Any, preexec: Any, close: Any, keep: Any, cwd: Any, env: Any,
                       info: Any, flags: Any, shell: Any, *more: Any) -> None:  # fmt: skip
        # The ends of the pipes, the child's first for standard input, and what follows them, such as the session.
        child_in, parent_in, parent_out, child_out, parent_err, child_err, *_ = more
        session = bool(more[11])
        streams = [place if fd == -1 else fd for place, fd in enumerate((child_in, child_out, child_err))]
        self.pid = self._python.fork(args[1:], cwd, env, streams, session)
        self._child_created = True
        self._close_pipe_fds(child_in, parent_in, parent_out, child_out, parent_err, child_err)


def _sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _take_in_orphans(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
