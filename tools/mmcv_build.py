"""What the set-up asks about the build of mmcv's operators. Run it in the environment that has torch.

    python tools/mmcv_build.py target          what they are built for; exit code 3 where a GPU will go without them
    python tools/mmcv_build.py flags FOLDER    CPPFLAGS that build them fast; FOLDER has to stay while building

Nearly all the time of that build goes into parsing the same torch header in each of its 78 files, and into debug
information that nobody reads. A header compiled once and `-g0` leave a fifth of the work, and the same operators. A
compiler that cannot use the precompiled header (another flag, another version) reads the plain one instead.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools  # noqa: F401  (brings the distutils that it and torch use)
import torch
from torch.utils.cpp_extension import CUDA_HOME, include_paths

from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip


def has_toolkit() -> bool:
    """Whether a CUDA toolkit is installed that torch accepts: one of the major version it was built with."""
    if CUDA_HOME is None or torch.version.cuda is None:
        return False
    try:
        answer = subprocess.run([str(Path(CUDA_HOME) / "bin" / "nvcc"), "--version"], capture_output=True, text=True)
    except OSError:
        return False
    release = re.search(r"release (\d+)\.", answer.stdout)
    return release is not None and release[1] == torch.version.cuda.partition(".")[0]


def target() -> tuple[str, bool]:
    """A name for what the operators fit (one torch, one Python, CUDA or not), and whether a GPU goes without them."""
    gpu = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"
    kind = "cuda" if gpu and has_toolkit() else "cpu"
    name = f"torch{torch.__version__}-cp{sys.version_info.major}{sys.version_info.minor}-{kind}"
    return name, gpu and kind == "cpu"


def flags(folder: Path) -> list[str]:
    """Precompile torch's header into the folder, and return the preprocessor flags that use it."""
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "torch_types.h"
    header.write_text("#include <torch/types.h>\n")
    # What torch's BuildExtension passes on: the compiler takes the precompiled header only for the very same flags.
    compiler = new_compiler()
    customize_compiler(compiler)
    includes = [f"-I{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    definitions = ["-std=c++17", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]
    command = [*shlex.split(os.environ.get("CXX", "c++")), *compiler.compiler_so[1:], "-g0", *includes, *definitions]
    command += ["-x", "c++-header", str(header), "-o", f"{header}.gch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    own = [*shlex.split(os.environ.get("CPPFLAGS", "")), "-g0", "-w"]
    if done.returncode == 0:
        return [*own, "-include", str(header)]
    Path(f"{header}.gch").unlink(missing_ok=True)
    print(done.stderr[-2000:], file=sys.stderr)
    return own


def main(argv: list[str]) -> int:
    match argv:
        case ["target"]:
            name, missed = target()
            print(name)
            return 3 if missed else 0
        case ["flags", folder]:
            print(shlex.join(flags(Path(folder).resolve())))
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
