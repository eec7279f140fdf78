"""Build of the compiled CPU kernels; everything else stands in pyproject.toml."""

import platform
from glob import glob

from setuptools import Extension, setup

INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-march=x86-64-v3"]
    INSTRUCTION_SETS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]

# The last four let the compiler vectorise sums; NaN and infinity keep their meaning.
FLAGS = ["-std=c++17", "-O3", "-g0", "-pthread", "-Wno-psabi"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
CSRC = "dtn_det/layers/kernels/csrc"

setup(
    ext_modules=[
        Extension(
            f"dtn_det.layers.kernels._dtn_cpu_{name}",
            sources=[f"{CSRC}/dtn_cpu.cpp"],
            depends=sorted(glob(f"{CSRC}/*.h")),
            extra_compile_args=FLAGS + flags,
            extra_link_args=["-pthread"],
            language="c++",
            # Without a compiler the layer runs in plain PyTorch: slower on a CPU, no different on a GPU.
            optional=True,
        )
        for name, flags in INSTRUCTION_SETS.items()
    ]
)
