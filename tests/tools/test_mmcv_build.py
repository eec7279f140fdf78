from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tool_scripts import load_tool

pytest.importorskip("setuptools")


@pytest.fixture
def build() -> ModuleType:
    return load_tool("mmcv_build")


@pytest.fixture
def toolkit(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvcc 13.1, and a torch built for 13.0."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.1, V13.1.48'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(build, "CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return tmp_path


def test_a_toolkit_of_torch_s_major_version(build: ModuleType, toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.has_toolkit()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert not build.has_toolkit()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not build.has_toolkit()


def test_no_toolkit(build: ModuleType, toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CUDA_HOME", str(toolkit / "elsewhere"))
    assert not build.has_toolkit()
    monkeypatch.setattr(build, "CUDA_HOME", None)
    assert not build.has_toolkit()


@pytest.mark.parametrize(
    ("gpu", "compiler", "kind", "missed"),
    [
        (False, False, "cpu", False),
        (False, True, "cpu", False),
        (True, True, "cuda", False),
        (True, False, "cpu", True),
    ],
)
def test_target(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, gpu: bool, compiler: bool, kind: str, missed: bool
) -> None:
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(build, "has_toolkit", lambda: compiler)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert build.target() == (f"torch{torch.__version__}-{python}-{kind}", missed)


@pytest.mark.usefixtures("toolkit")
def test_cuda_on_demand(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("FORCE_CUDA", "1")
    assert build.target()[0].endswith("-cuda")


def test_flags_without_a_compiler_that_precompiles(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'no precompiled headers here' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CPPFLAGS", "-DMINE=1")
    assert build.flags(tmp_path / "headers") == ["-DMINE=1", "-g0", "-w"]
    assert "no precompiled headers here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_compiler_takes_the_precompiled_header(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++")
    flags = build.flags(tmp_path / "headers")
    assert flags[-2:] == ["-include", str(tmp_path / "headers" / "torch_types.h")]
    source = tmp_path / "operator.cpp"
    source.write_text("#include <torch/types.h>\nauto zeros() { return torch::zeros({2}); }\n")
    compiler = build.new_compiler()
    build.customize_compiler(compiler)
    includes = [f"-I{path}" for path in build.include_paths()]
    definitions = ["-std=c++17", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]
    # -H lists the headers that are read; `!` stands before one that was precompiled, `x` before one that does not fit.
    reporting = ["-H"]
    done = subprocess.run(
        ["g++", *compiler.compiler_so[1:], *flags, *includes, *definitions, *reporting, "-c", source, "-o", os.devnull],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"! {tmp_path / 'headers' / 'torch_types.h.gch'}" in done.stderr.splitlines()


@pytest.mark.parametrize("argv", [[], ["flags"], ["build"]])
def test_usage(build: ModuleType, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(argv) == 2
    assert "mmcv_build.py target" in capsys.readouterr().err
