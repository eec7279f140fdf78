"""The set-up script, with a stand-in for Python and pip that writes down how it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

TOOLS = ("bash", "cat", "cksum", "cp", "df", "awk", "env", "dirname", "flock", "getconf", "grep", "ls", "mkdir", "rm")
TOOLS += ("head", "sed", "tail", "tee", "touch")
STAND_IN = r"""#!/usr/bin/env bash
# Answers as Python would, from what the set-up script asks.
echo "$*" | head -n 1 >>"$STUB/calls"
case "$*" in
  *"version_info[:2] <="*) exit "${STUB_UNSUITABLE:-0}" ;;
  *--version*pip* | *"pip --version"*) [ -e "$STUB/pip" ] ;;
  *--version*) echo "Python ${STUB_VERSION:-3.11.7}" ;;
  *"-m ensurepip"*) touch "$STUB/pip" ;;
  *"import ensurepip"*) exit "${STUB_NO_VENV:-0}" ;;
  *python_version*) echo "${STUB_VERSION:-3.11.7}" ;;
  *"-m venv"*)
    target=${!#}
    mkdir -p "$target/bin"
    cp "$0" "$target/bin/python"
    touch "$target/pyvenv.cfg" "$STUB/pip"
    ;;
  *get_path*) echo "$STUB/include" ;;
  *importlib.metadata*) [ ! -e "$STUB/mmcv" ] || echo 2.3.6 ;;
  *mmcv.ops*) [ -e "$STUB/mmcv" ] ;;
  *"mmcv_build.py flags"*) echo "-g0" ;;
  *"mmcv_build.py target"*)
    echo "${STUB_TARGET:-torch2.12.1-cp311-cpu}"
    exit "${STUB_TARGET_CODE:-0}"
    ;;
  *"pip wheel"*)
    if [ -n "${STUB_FAIL_WHEEL:-}" ]; then echo "$STUB_FAIL_WHEEL"; exit 1; fi
    while [ "$1" != --wheel-dir ]; do shift; done
    mkdir -p "$2"
    echo "  [39/78] c++ -c nms.cpp"
    touch "$2/onedl_mmcv-2.3.6-py3-none-any.whl"
    ;;
  *"pip install"*)
    if [ -n "${STUB_FAIL:-}" ] && [[ "$*" == *"${STUB_FAIL_ON:-torch==}"* ]]; then echo "$STUB_FAIL"; exit 1; fi
    [[ "$*" != *.whl* ]] || touch "$STUB/mmcv"
    ;;
esac
"""


class Project:
    """A folder with the files that the script reads, and a PATH on which only the stand-in is a Python."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root, self.stub = folder / "project", folder / "stub"
        (self.root / "tools").mkdir(parents=True)
        (self.root / "dtn_det/layers/kernels/csrc").mkdir(parents=True)
        for name in (
            "constraints.txt",
            "pyproject.toml",
            "setup.py",
            "tools/setup_env.sh",
            "tools/mmcv_build.py",
        ):
            shutil.copy(root / name, self.root / name)
        (self.root / "dtn_det/layers/kernels/csrc/dtn_cpu.cpp").write_text("int zero() { return 0; }\n")
        (self.stub / "include").mkdir(parents=True)
        (self.stub / "include/Python.h").touch()
        self.bin = self.stub / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.add("c++", "#!/bin/sh\n")

    def add(self, name: str, text: str = STAND_IN) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.stub / "calls").write_text("")
        return subprocess.run(
            ["bash", "tools/setup_env.sh"],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": str(self.bin),
                "HOME": str(self.stub),
                "STUB": str(self.stub),
                # The stand-in asks for as much disk as an environment without torch's CUDA build.
                "TORCH_INDEX": "an-index",
                **environment,
            },
        )

    def pip_calls(self) -> list[str]:
        calls = (self.stub / "calls").read_text().splitlines()
        return [call for call in calls if "pip install" in call or "pip wheel" in call]


@pytest.fixture
def project(tmp_path: Path, project_root: Path) -> Project:
    return Project(tmp_path, project_root)


@pytest.fixture
def ready(project: Project) -> Project:
    project.add("python3")
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


class TestStages:
    def test_everything_is_installed_once(self, project: Project) -> None:
        project.add("python3")
        first = project.run()
        assert first.returncode == 0, first.stdout + first.stderr
        assert "making .venv with Python 3.11.7" in first.stdout
        assert "compiled 39 of 78 files" in first.stdout
        calls = project.pip_calls()
        assert [call for call in calls if "--no-binary onedl-mmcv" in call and "--no-build-isolation" in call]
        assert [call for call in calls if "--editable .[all,dev]" in call]
        assert "opencv-python-headless==" in calls[-1]

        second = project.run()
        assert second.returncode == 0
        assert project.pip_calls() == []
        assert ".venv is ready (Python 3.11.7); reused: pip" in second.stdout
        for done in (first, second):
            assert done.stdout.rstrip().endswith("; to use it: source .venv/bin/activate")

    @pytest.mark.parametrize("source", ["setup.py", "dtn_det/layers/kernels/csrc/dtn_cpu.cpp", "pyproject.toml"])
    def test_changed_sources_install_the_package_again_and_nothing_else(self, ready: Project, source: str) -> None:
        with (ready.root / source).open("a") as file:
            file.write("\n")
        assert ready.run().returncode == 0
        assert len(ready.pip_calls()) == 1
        assert "--editable .[all,dev]" in ready.pip_calls()[0]

    def test_a_changed_pin_checks_all_and_keeps_mmcv(self, ready: Project) -> None:
        with (ready.root / "constraints.txt").open("a") as file:
            file.write("another==1.0\n")
        done = ready.run()
        assert "reusing the operators in .venv" in done.stdout
        assert not [call for call in ready.pip_calls() if "pip wheel" in call]
        assert [call for call in ready.pip_calls() if "torch==" in call]

    def test_mmcv_is_compiled_again_for_another_torch(self, ready: Project) -> None:
        (ready.root / ".venv/.dtn-det/mmcv.stamp").unlink()
        done = ready.run(STUB_TARGET="torch2.13.0-cp311-cpu")
        assert done.returncode == 0, done.stdout + done.stderr
        calls = ready.pip_calls()
        assert len([call for call in calls if "pip wheel" in call]) == 1
        assert [call for call in calls if "--force-reinstall" in call and ".whl" in call]

    def test_a_new_environment_takes_the_compiled_operators_from_the_cache(self, ready: Project) -> None:
        shutil.rmtree(ready.root / ".venv")
        (ready.stub / "mmcv").unlink()
        done = ready.run()
        assert "reusing the operators compiled before" in done.stdout
        assert not [call for call in ready.pip_calls() if "pip wheel" in call]

    def test_an_interrupted_set_up_goes_on_where_it_stopped(self, project: Project) -> None:
        project.add("python3")
        assert project.run(STUB_FAIL="killed", STUB_FAIL_ON="--editable").returncode == 1
        done = project.run()
        assert done.returncode == 0
        assert "reused: pip, setuptools" in done.stdout
        assert len(project.pip_calls()) == 2

    def test_a_gpu_without_a_toolkit_is_a_warning(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_TARGET_CODE="3")
        assert done.returncode == 0, done.stderr
        assert "warning: a GPU but no CUDA toolkit (nvcc)" in done.stdout

    def test_cuda_pins_are_left_out_for_another_index(self, project: Project) -> None:
        project.add("python3")
        project.run(TORCH_INDEX="an-index")
        kept = (project.root / ".venv/.dtn-det/constraints.txt").read_text()
        assert "nvidia-" not in kept
        assert "\ntorch==" in kept
        assert [call for call in project.pip_calls() if "--index-url an-index torch==" in call]

    def test_further_arguments_reach_pip(self, project: Project) -> None:
        project.add("python3")
        project.run(PIP_ARGS="--retries 9")
        assert all("--retries 9" in call for call in project.pip_calls())


class TestPython:
    def test_none(self, project: Project) -> None:
        done = project.run()
        assert done.returncode == 1
        assert "expected a Python from 3.10 to 3.13 with its venv module, got: none at all" in done.stderr
        assert "apt-get install python3 " in done.stderr

    def test_too_old(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_UNSUITABLE="1", STUB_VERSION="3.8.18")
        assert done.returncode == 1
        assert "got: python3 is Python 3.8.18" in done.stderr

    def test_without_venv(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_NO_VENV="1")
        assert done.returncode == 1
        assert "it lacks venv: apt-get install python3-venv" in done.stderr

    def test_the_first_suitable_one_is_taken(self, project: Project) -> None:
        project.add("python3", "#!/bin/sh\nexit 1\n")
        project.add("python3.12")
        done = project.run()
        assert done.returncode == 0, done.stderr
        assert "python3.12)" in done.stdout

    def test_another_than_the_environment_s(self, ready: Project) -> None:
        ready.add("python3.12", "#!/bin/sh\necho 3.12.1\n")
        done = ready.run(PYTHON="python3.12")
        assert done.returncode == 1
        assert ".venv holds Python 3.11.7, PYTHON is 3.12.1" in done.stderr
        assert "make setup VENV=.venv-3.12.1 PYTHON=python3.12" in done.stderr


class TestRepair:
    def test_half_made_environment(self, project: Project) -> None:
        project.add("python3")
        (project.root / ".venv/bin").mkdir(parents=True)
        done = project.run()
        assert done.returncode == 0, done.stderr
        assert ".venv is half made or its Python is gone: making it anew" in done.stdout

    def test_environment_without_pip(self, ready: Project) -> None:
        (ready.stub / "pip").unlink()
        done = ready.run()
        assert done.returncode == 0, done.stderr
        assert "lacks a working pip: putting it back" in done.stdout
        assert (ready.stub / "pip").exists()

    def test_a_folder_that_is_no_environment_is_left_alone(self, project: Project) -> None:
        project.add("python3")
        (project.root / "mine").mkdir()
        (project.root / "mine/thesis.txt").write_text("all of it")
        done = project.run(VENV="mine")
        assert done.returncode == 1
        assert "mine exists and is no virtual environment" in done.stderr
        assert (project.root / "mine/thesis.txt").exists()


class TestFailures:
    @pytest.mark.parametrize(
        ("output", "hint"),
        [
            ("OSError: [Errno 28] No space left on device", "the disk is full"),
            ("fatal error: Python.h: No such file or directory", "Python's headers are missing"),
            ("/bin/sh: 1: c++: not found", "no C++ compiler"),
            ("FileNotFoundError: [Errno 2] No such file or directory: 'c++'", "no C++ compiler"),
            ("c++: fatal error: Killed signal terminated program cc1plus", "MAX_JOBS=1"),
            ("[Errno -2] Name or service not known", "the package index was not reached"),
            ("ERROR: No matching distribution found for torch==2.12.1", "no such version for Python 3.11.7"),
            ("error: something else", "the whole log is .venv/.dtn-det/logs/torch.log"),
        ],
    )
    def test_the_log_is_shown_with_what_to_do(self, project: Project, output: str, hint: str) -> None:
        project.add("python3")
        done = project.run(STUB_FAIL=output)
        assert done.returncode == 1
        assert output in done.stderr
        assert "error: the stage 'torch' failed" in done.stderr
        assert hint in done.stderr

    def test_no_compiler(self, project: Project) -> None:
        project.add("python3")
        (project.bin / "c++").unlink()
        done = project.run()
        assert done.returncode == 1
        assert "no C++ compiler (c++)" in done.stderr

    def test_no_headers(self, project: Project) -> None:
        project.add("python3")
        (project.stub / "include/Python.h").unlink()
        done = project.run()
        assert done.returncode == 1
        assert "apt-get install python3-dev" in done.stderr

    def test_no_disk(self, project: Project) -> None:
        project.add("python3")
        (project.bin / "df").unlink()
        project.add("df", "#!/bin/sh\nprintf 'head\\n/dev/disk 9 8 3145728 99%% /\\n'\n")
        done = project.run(TORCH_INDEX="")
        assert done.returncode == 1
        assert "expected 8 GB free for .venv, got 3 GB" in done.stderr

    def test_torch_that_does_not_import(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_TARGET_CODE="1")
        assert done.returncode == 1
        assert "error: the stage 'mmcv' failed" in done.stderr

    def test_failing_build(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_FAIL_WHEEL="nms.cpp:1: error: expected ';'")
        assert done.returncode == 1
        assert "nms.cpp:1: error: expected ';'" in done.stderr
        assert len([call for call in project.pip_calls() if "pip wheel" in call]) == 1

    def test_a_refused_precompiled_header_is_done_without(self, project: Project) -> None:
        project.add("python3")
        done = project.run(STUB_FAIL_WHEEL="cc1plus: fatal error: had to relocate PCH")
        assert done.returncode == 1
        assert len([call for call in project.pip_calls() if "pip wheel" in call]) == 2


class TestContinuousIntegration:
    """`.ci/run` with stand-ins for make, apt-get, dpkg-query and id, which write down how they are called."""

    @pytest.fixture
    def run(self, tmp_path: Path, project_root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
        def run(**programs: str) -> subprocess.CompletedProcess[str]:
            stand_ins = {"make": 'echo "$PWD: $*"', "id": "echo 0", "dpkg-query": "echo installed", "apt-get": ""}
            for name, text in {**stand_ins, **{key.replace("_", "-"): text for key, text in programs.items()}}.items():
                file = tmp_path / name
                file.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\n{text}\n')
                file.chmod(0o755)
            return subprocess.run(
                ["bash", str(project_root / ".ci/run")],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
                env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            )

        return run

    def calls(self, tmp_path: Path) -> list[str]:
        return [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("apt-get")]

    def test_make_test_runs_from_the_root(self, run: Any, tmp_path: Path, project_root: Path) -> None:
        assert run().stdout == f"{project_root}: test\n"
        assert self.calls(tmp_path) == []

    def test_missing_packages_are_installed(self, run: Any, tmp_path: Path, project_root: Path) -> None:
        assert run(dpkg_query='case "$*" in *texlive*) echo installed ;; *) exit 1 ;; esac').stdout == (
            f"{project_root}: test\n"
        )
        update, install = self.calls(tmp_path)
        assert update.startswith("apt-get update")
        assert install.endswith(" chromium chromium-driver")

    def test_a_failure_is_tried_again_and_told(self, run: Any, tmp_path: Path, project_root: Path) -> None:
        done = run(dpkg_query="exit 1", apt_get='echo "E: no such mirror"; exit 100')
        assert done.stdout == f"{project_root}: test\n"
        assert "E: no such mirror\n[ci] warning: apt-get failed" in done.stderr
        assert len(self.calls(tmp_path)) == 4

    def test_users_who_are_not_root_get_no_packages(self, run: Any, tmp_path: Path) -> None:
        done = run(dpkg_query="exit 1", id="echo 1000")
        assert "[ci] not installed: chromium " in done.stderr
        assert self.calls(tmp_path) == []
