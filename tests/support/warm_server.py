"""The process behind :mod:`warm_python`: imports modules and forks a process for every program, as it is asked.

Run as ``python warm_server.py SOCKET``.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
import types
from typing import Any


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Import and fork as asked; returns the request in the new processes, and None at the end in this one."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return None
        request = json.loads(message)
        if "load" in request:
            connection.send(json.dumps(load(request["load"])).encode())
        elif fork(connection):
            connection.close()
            if "branch" not in request:
                for place, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, place)
                    os.close(descriptor)
                return request
            (descriptor,) = descriptors
            connection, descriptors = socket.socket(fileno=descriptor), []
        for descriptor in descriptors:
            os.close(descriptor)


def load(modules: list[str]) -> dict[str, Any] | None:
    """Import modules; why that failed."""
    try:
        for name in modules:
            importlib.import_module(name)
    except BaseException:
        return {"failed": traceback.format_exc()}
    gc.collect()
    gc.freeze()  # collections in the new processes copy nothing of this
    return None


def fork(connection: socket.socket) -> bool:
    """Whether this is the new process, whose parent has ended by then; the other one has told its id."""
    own, theirs = os.pipe()
    between = os.fork()
    if between == 0:
        between = os.getpid()
        pid = os.fork()
        if pid:
            os.write(theirs, str(pid).encode())
            os._exit(0)
        os.close(own)
        os.close(theirs)
        while os.getppid() == between:
            time.sleep(0.001)
        return True
    os.close(theirs)
    pid = int(os.read(own, 20))
    os.close(own)
    os.waitpid(between, 0)
    connection.send(json.dumps(pid).encode())
    return False


def begin(request: dict[str, Any]) -> None:
    """Make this process what a fresh interpreter would be."""
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["env"])
    now = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in now if path and path not in before]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def run(arguments: list[str]) -> None:
    """Do what Python does with these arguments: ``-c CODE``, ``-m MODULE`` or a file, and those of the program."""
    kind, *rest = arguments
    if kind == "-c":
        code, sys.argv = rest[0], ["-c", *rest[1:]]
        sys.path[0] = ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv = rest
        sys.path[0] = os.getcwd()
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


def end(code: Any) -> None:
    """End this process as an interpreter does, but leave it to the system to take all modules apart."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


def main() -> None:
    """Serve, and be the program in the processes that this forks."""
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    begin(request)
    try:
        run(request["arguments"])
    except SystemExit as error:
        end(error.code)
    except Exception:
        traceback.print_exc()
        end(1)
    end(0)


if __name__ == "__main__":
    main()
