from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtn_det.doctor import checks as doctor
from dtn_det.doctor.checks import Check
from dtn_det.doctor.probes import PROBES, Outcome, Probe, run_probe

BY_NAME = {probe.name: probe for probe in PROBES}
PIP = f"{sys.executable} -m pip"
CPU_TORCH = Outcome(facts={"cuda": None, "devices": []})
CUDA_TORCH = Outcome(facts={"cuda": "13.0", "devices": []})
GPU_TORCH = Outcome(facts={"cuda": "13.0", "devices": ["NVIDIA H200"]})


class TestProbe:
    def test_facts_come_back_through_whatever_is_printed(self) -> None:
        outcome = run_probe("print('dtn-det probe: noise'); facts['answer'] = [1, 'two']; print('more noise', end='')")
        assert outcome == Outcome(facts={"answer": [1, "two"]})

    def test_last_line_of_the_traceback(self) -> None:
        outcome = run_probe("raise RuntimeError('operator torchvision::nms does not exist')")
        assert outcome.error == "RuntimeError: operator torchvision::nms does not exist"
        assert outcome.missing is None

    def test_missing_module(self) -> None:
        assert run_probe("import no_such_package.part").missing == "no_such_package"

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
            ("import os; os._exit(3)", "ended with exit code 3"),
            ("import os; os._exit(0)", "ended the process without a word"),
        ],
    )
    def test_a_process_that_goes_down(self, code: str, error: str) -> None:
        assert run_probe(code).error == error

    def test_timeout(self) -> None:
        assert run_probe("import time; time.sleep(60)", timeout=0.5).error == "did not end within 0.5 s"

    def test_importing_the_package_leaves_mmdetection_out(self) -> None:
        assert run_probe("import dtn_det; facts['mmdet'] = 'mmdet' in sys.modules").facts == {"mmdet": False}


def check_with(
    name: str, modules: dict[str, str], versions: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Check:
    """Probe with torch replaced by an empty module and others by the given source, in the process of its own."""
    for module, source in {"torch.py": "", **modules}.items():
        path = folder / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    probe = BY_NAME[name]
    return doctor.check_package(probe, run_probe(probe.code), versions)


class TestPackages:
    def test_ok(self) -> None:
        check = doctor.check_package(BY_NAME["torch"], Outcome(facts={"note": "CUDA 13.0"}), {"torch": "2.12.1"})
        assert check == Check("torch", "ok", "2.12.1 (torch); CUDA 13.0")

    def test_upstream_distribution_is_named(self) -> None:
        check = doctor.check_package(BY_NAME["mmdet"], Outcome(facts={"note": "fine"}), {"mmdet": "3.3.0"})
        assert check == Check("mmdet", "ok", "3.3.0 (mmdet); fine")

    @pytest.mark.parametrize("probe", [probe for probe in PROBES if probe.extra is not None], ids=lambda p: p.name)
    def test_an_extra_that_is_not_installed_is_no_fault(self, probe: Probe) -> None:
        error = f"ModuleNotFoundError: No module named '{probe.module}'"
        check = doctor.check_package(probe, Outcome(error=error, missing=probe.module), {})
        assert check.status == "absent"
        assert f"[{probe.extra}]" in str(check.fix)

    @pytest.mark.parametrize("name", ["torch", "numpy"])
    def test_what_is_always_needed_is_an_error(self, name: str) -> None:
        check = doctor.check_package(BY_NAME[name], Outcome(error="ModuleNotFoundError", missing=name), {})
        assert (check.status, check.fix) == ("error", f"{PIP} install {name}")

    def test_layers_without_torch(self) -> None:
        check = doctor.check_package(
            BY_NAME["dtn_det.layers"], Outcome(error="ModuleNotFoundError", missing="torch"), {"dtn-det": "0.1.0"}
        )
        assert (check.status, check.fix) == ("error", f"{PIP} install torch")

    def test_torchvision_for_another_torch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = "raise RuntimeError('operator torchvision::nms does not exist')"
        versions = {"torch": "2.12.1", "torchvision": "0.26.0"}
        check = check_with("torchvision", {"torchvision.py": source}, versions, tmp_path, monkeypatch)
        assert check.status == "error"
        assert "0.26.0 (torchvision); RuntimeError: operator torchvision::nms does not exist" in check.detail
        assert check.fix == f"{PIP} install --force-reinstall --no-deps torchvision==0.27.*"

    def test_mmcv_without_operators(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        check = check_with("mmcv operators", {"mmcv/__init__.py": ""}, {"mmcv-lite": "2.1.0"}, tmp_path, monkeypatch)
        assert check.status == "error"
        assert "No module named 'mmcv._ext'" in check.detail
        assert "--no-build-isolation onedl-mmcv==2.3.6" in str(check.fix)

    def test_mmcv_compiled_for_another_torch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        modules = {"mmcv/__init__.py": "", "mmcv/_ext.py": "raise ImportError('undefined symbol: _ZN2at')"}
        check = check_with("mmcv operators", modules, {"onedl-mmcv": "2.3.6"}, tmp_path, monkeypatch)
        assert check.status == "error"
        assert "undefined symbol" in check.detail
        assert "--no-cache-dir" in str(check.fix)

    def test_mmcv_that_takes_the_process_down(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        modules = {"mmcv/__init__.py": "", "mmcv/_ext.py": crash}
        check = check_with("mmcv operators", modules, {"onedl-mmcv": "2.3.6"}, tmp_path, monkeypatch)
        assert check.status == "error"
        assert "crashed with SIGSEGV" in check.detail

    @pytest.mark.parametrize(
        ("module", "fix"),
        [("mmcv", "onedl-mmcv==2.3.6"), ("mmengine", f"{PIP} install onedl-mmengine")],
    )
    def test_mmdet_alone(self, module: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        modules = {"mmdet/__init__.py": f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')"}
        check = check_with("mmdet", modules, {"onedl-mmdetection": "3.5.1"}, tmp_path, monkeypatch)
        assert check.status == "error"
        assert fix in str(check.fix)

    def test_mmdet_without_our_backbones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mmdet")
        modules = {
            "sitecustomize.py": "import sys, types\nfor name in ('mmdet', 'mmdet.models', 'mmdet.registry',"
            " 'dtn_det.backbones'):\n    sys.modules[name] = types.ModuleType(name)\n"
            "sys.modules['mmdet.registry'].MODELS = types.SimpleNamespace(module_dict={'SwinTransformer': None})\n"
        }
        check = check_with("mmdet", modules, {"onedl-mmdetection": "3.5.1"}, tmp_path, monkeypatch)
        assert check.status == "error"
        assert "no DTN backbone in MMDetection's registry" in check.detail

    def test_opencv_without_a_desktop(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = "raise ImportError('libGL.so.1: cannot open shared object file')"
        versions = {"opencv-python": "4.12.0.88"}
        check = check_with("opencv", {"cv2.py": source}, versions, tmp_path, monkeypatch)
        assert check.status == "error"
        assert check.fix == f"{PIP} install --force-reinstall --no-deps opencv-python-headless==4.12.0.88"

    def test_transformers_too_new_for_mmpretrain(self) -> None:
        outcome = Outcome(error="ImportError: cannot import name 'apply_chunking_to_forward'")
        versions = {"onedl-mmpretrain": "1.3.6", "transformers": "4.60.0"}
        check = doctor.check_package(BY_NAME["mmpretrain"], outcome, versions)
        assert (check.status, check.fix) == ("error", f"{PIP} install 'transformers>=4.40,<4.54'")

    def test_mmpretrain_broken_otherwise(self) -> None:
        versions = {"onedl-mmpretrain": "1.3.6", "transformers": "4.53.3"}
        check = doctor.check_package(BY_NAME["mmpretrain"], Outcome(error="SyntaxError: invalid"), versions)
        assert check.fix == f"{PIP} install --force-reinstall --no-deps onedl-mmpretrain"

    def test_corruptions_that_do_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = "def corrupt(image, corruption_name):\n    raise AttributeError('numpy has no attribute float_')"
        versions = {"imagecorruptions": "1.1.2"}
        check = check_with("imagecorruptions", {"imagecorruptions.py": source}, versions, tmp_path, monkeypatch)
        assert check.status == "error"
        assert str(check.fix).endswith("imagecorruptions-imaug")


class TestGpu:
    @pytest.mark.parametrize(
        ("torch", "driver", "status", "detail", "fix"),
        [
            (GPU_TORCH, "580.1", "ok", "NVIDIA H200; CUDA 13.0, driver 580.1", None),
            (CPU_TORCH, None, "ok", "built for the CPU", None),
            (CUDA_TORCH, None, "ok", "no NVIDIA driver", None),
            (CPU_TORCH, "580.1", "warning", "torch is built for the CPU", "make setup TORCH_INDEX=URL"),
            (CUDA_TORCH, "470.1", "warning", "sees no device", "update the driver, or make setup TORCH_INDEX=URL"),
            (Outcome(error="OSError"), None, "warning", "torch does not import", None),
        ],
    )
    def test_torch_and_the_driver(
        self, torch: Outcome, driver: str | None, status: str, detail: str, fix: str | None
    ) -> None:
        check = doctor.check_gpu(torch, driver=driver)
        assert check.status == status
        assert detail in check.detail
        assert check.fix is None if fix is None else str(check.fix).startswith(fix)

    def test_mmcv_without_cuda_on_a_gpu(self) -> None:
        mmcv = Outcome(facts={"cuda_error": "nms_impl: implementation for device cuda:0 not found."})
        check = doctor.check_mmcv_gpu(mmcv, GPU_TORCH)
        assert check.status == "error"
        assert str(check.fix).startswith("FORCE_CUDA=1 ")

    @pytest.mark.parametrize(
        ("mmcv", "torch", "status"),
        [
            (Outcome(facts={"cuda_error": None}), GPU_TORCH, "ok"),
            (Outcome(facts={"cuda_error": None}), CUDA_TORCH, "absent"),
            (Outcome(error="ImportError"), GPU_TORCH, "absent"),
        ],
    )
    def test_mmcv(self, mmcv: Outcome, torch: Outcome, status: str) -> None:
        assert doctor.check_mmcv_gpu(mmcv, torch).status == status

    def test_driver_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        path = tmp_path / "version"
        assert doctor.nvidia_driver(path) is None
        path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:02 UTC 2025\n")
        assert doctor.nvidia_driver(path) == "580.95.05"
        path.write_text("something else")
        assert doctor.nvidia_driver(path) == "unknown"

    def test_driver_known_by_its_tool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert doctor.nvidia_driver(tmp_path / "no such file") == "unknown"


class TestNative:
    @pytest.mark.parametrize(
        ("layers", "status", "fix"),
        [
            (Outcome(facts={"native": "_dtn_cpu_avx2.so (avx2)", "native_available": True}), "ok", None),
            (Outcome(facts={"native": "not built", "native_available": False}), "warning", "--no-build-isolation"),
            (
                Outcome(facts={"native": "switched off by DTN_DET_NATIVE=0", "native_available": False}),
                "warning",
                "unset DTN_DET_NATIVE",
            ),
            (Outcome(error="ImportError"), "absent", None),
        ],
    )
    def test_kernels(self, layers: Outcome, status: str, fix: str | None) -> None:
        check = doctor.check_native(layers)
        assert check.status == status
        assert check.fix is None if fix is None else fix in str(check.fix)

    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DTN_DET_NATIVE", "0")
        check = doctor.check_native(run_probe(BY_NAME["dtn_det.layers"].code))
        assert (check.status, check.fix) == ("warning", "unset DTN_DET_NATIVE")


class TestRequirements:
    def test_a_version_that_is_too_old_or_too_new_is_named_with_the_command(self) -> None:
        declared = ("faster-coco-eval>=1.8", "transformers>=4.40,<4.54; extra == 'cls'", "torch>=2.7", "dtn-det[cli]")
        versions = {"faster-coco-eval": "1.7.2", "transformers": "4.55.0", "torch": "2.12.1+cpu", "dtn-det": "0.0.1"}
        checks = doctor.check_requirements(versions, declared)
        assert [(check.name, check.status) for check in checks] == [
            ("faster-coco-eval version", "error"),
            ("transformers version", "error"),
        ]
        assert checks[0].detail == "1.7.2 is installed, dtn-det needs >=1.8"
        assert str(checks[0].fix).endswith("-m pip install 'faster-coco-eval>=1.8'")
        # What is not installed is told by the probe of its extra.
        assert doctor.check_requirements({}, declared) == []

    def test_mmcv_is_built_again(self) -> None:
        (check,) = doctor.check_requirements({"onedl-mmcv": "2.3.5"}, ["onedl_mmcv>=2.3.6"])
        assert check.fix == doctor.rebuild_mmcv()

    def test_this_environment_has_what_is_declared(self) -> None:
        declared = doctor.declared_requirements()
        assert any(text.startswith("faster-coco-eval>=1.8") for text in declared)
        assert doctor.check_requirements(doctor.installed_versions(), declared) == []


class TestConflicts:
    @pytest.mark.parametrize(("ours", "other"), doctor.RIVALS)
    def test_rivals(self, ours: str, other: str) -> None:
        checks = doctor.check_rivals({ours: "1.0", other: "2.0", "numpy": "2.2.6"})
        assert [check.status for check in checks] == ["error"]
        assert f"uninstall -y {ours} {other} && " in str(checks[0].fix)

    @pytest.mark.parametrize("pair", doctor.RIVALS)
    def test_one_alone_is_fine(self, pair: tuple[str, str]) -> None:
        assert [doctor.check_rivals({name: "1.0"}) for name in pair] == [[], []]

    def test_opencv_of_one_version(self) -> None:
        check = doctor.check_opencv({"opencv-python": "4.12.0.88", "opencv-python-headless": "4.12.0.88"})
        assert check.status == "ok"

    def test_opencv_of_two_versions(self) -> None:
        check = doctor.check_opencv({"opencv-python": "4.12.0.88", "opencv-python-headless": "4.9.0.80"})
        assert check.status == "warning"
        assert "opencv-python-headless==4.12.0.88 opencv-python==4.12.0.88" in str(check.fix)

    def test_no_opencv(self) -> None:
        assert doctor.check_opencv({}).status == "absent"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 0), "ok"), ((3, 13, 2), "ok"), ((3, 9, 18), "warning"), ((3, 14, 0), "warning")]
)
def test_python(version: tuple[int, int, int], status: str) -> None:
    assert doctor.check_python(version).status == status


@pytest.mark.parametrize(
    ("torch", "torchvision"), [("2.12.1", "0.27.*"), ("2.4.0+cpu", "0.19.*"), ("1.13.1", None), ("", None)]
)
def test_matching_torchvision(torch: str, torchvision: str | None) -> None:
    assert doctor.matching_torchvision(torch) == torchvision


def test_versions_are_of_what_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        info = tmp_path / folder / "Some_Package.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Some_Package\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "second")
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert doctor.installed_versions()["some-package"] == "2.0"


def test_health() -> None:
    fine = [Check("a", "ok", ""), Check("b", "absent", ""), Check("c", "warning", "")]
    assert doctor.is_healthy(fine)
    assert not doctor.is_healthy([*fine, Check("d", "error", "")])


def test_mmcv_version_is_the_pinned_one(project_root: Path) -> None:
    assert f"onedl-mmcv=={doctor.MMCV_VERSION}" in (project_root / "constraints.txt").read_text().splitlines()


def test_fix_outside_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "source_folder", lambda: None)
    assert doctor.install_extra("cls") == f"{PIP} install --no-build-isolation 'dtn-det[cls]'"
    assert doctor.install_extra("det").endswith(f"&& {PIP} install --no-build-isolation 'dtn-det[det]'")
