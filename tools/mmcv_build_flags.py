"""Print the CPPFLAGS that build mmcv's operators fast, after precompiling torch's headers.

Nearly all the time of that build goes into parsing the same torch header in each of its 78 files, and into debug
information that nobody reads. A header compiled once and `-g0` leave a fifth of the work, and the same operators. A
compiler that cannot use the precompiled header (another flag, another version) reads the plain one instead.

Usage, with the environment that has torch: python tools/mmcv_build_flags.py FOLDER (keep FOLDER while building).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools  # noqa: F401  (brings the distutils that it and torch use)
from torch.utils.cpp_extension import include_paths

from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "torch_types.h"
    header.write_text("#include <torch/types.h>\n")
    own = shlex.split(os.environ.get("CPPFLAGS", ""))
    # What torch's BuildExtension passes on: the compiler takes the precompiled header only for the very same flags.
    compiler = new_compiler()
    customize_compiler(compiler)
    includes = [f"-I{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    definitions = ["-std=c++17", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]
    command = [*shlex.split(os.environ.get("CXX", "c++")), *compiler.compiler_so[1:], "-g0", *includes, *definitions]
    command += ["-x", "c++-header", str(header), "-o", f"{header}.gch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    flags = [*own, "-g0"]
    if done.returncode == 0:
        flags += ["-include", str(header)]
    else:
        Path(f"{header}.gch").unlink(missing_ok=True)
        print(done.stderr[-2000:], file=sys.stderr)
    print(shlex.join(flags))
    return 0


if __name__ == "__main__":
    sys.exit(main())
