"""Check which packages are installed and whether they work, and find the commands that repair the faults.

Each package is tried in a separate process, so that a crash becomes a line in the report. The status of a package is
`error` if it is installed but does not work. The status `absent` is no fault: the package belongs to an extra that is
not installed.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dtn_det.doctor import probes
from dtn_det.doctor.probes import Outcome, run_probe

Status = Literal["ok", "absent", "warning", "error"]

MMCV_VERSION: Final = "2.3.6"
# Pairs of distributions with the same import name: the one installed later has overwritten files of the other one.
RIVALS: Final = (
    ("onedl-mmcv", "mmcv"),
    ("onedl-mmcv", "mmcv-lite"),
    ("onedl-mmengine", "mmengine"),
    ("onedl-mmengine", "mmengine-lite"),
    ("onedl-mmdetection", "mmdet"),
    ("onedl-mmpretrain", "mmpretrain"),
    ("imagecorruptions-imaug", "imagecorruptions"),
)
OPENCVS: Final = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        status: `ok`, `absent` (an extra is not installed), `warning` (works, with a drawback) or `error`.
        detail: The version, and what was found.
        fix: The command that repairs the fault; `None` if there is nothing to repair.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None


def diagnose() -> Iterator[Check]:
    """Check the whole installation, and yield the checks in the order of the report as soon as each is known.

    Each package is imported in a process of its own, which may take a minute in all.
    """
    versions = installed_versions()
    yield check_python(sys.version_info[:3])
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        pending = [pool.submit(run_probe, probe.code) for probe in probes.PROBES]
        for probe, future in zip(probes.PROBES, pending, strict=True):
            outcomes[probe.name] = future.result()
            yield check_package(probe, outcomes[probe.name], versions)
    yield check_gpu(outcomes["torch"], driver=nvidia_driver())
    yield check_mmcv_gpu(outcomes["mmcv operators"], outcomes["torch"])
    yield check_native(outcomes["dtn_det.layers"])
    yield from check_requirements(versions, declared_requirements())
    yield from check_rivals(versions)
    yield check_opencv(versions)


def is_healthy(checks: Sequence[Check]) -> bool:
    """Return whether all checks have a status other than `error`."""
    return all(check.status != "error" for check in checks)


def installed_versions() -> dict[str, str]:
    """Return the versions of all installed distributions by normalised name."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            # Store the version of the first distribution on the path, because Python imports this one.
            versions.setdefault(canonicalize_name(name), distribution.version)
    return versions


def check_python(version: tuple[int, int, int]) -> Check:
    """Check that this version of Python is one that the pinned packages support."""
    text = ".".join(map(str, version))
    detail = f"{text} on {platform.system()} {platform.machine()}"
    if (3, 10) <= version[:2] <= (3, 13):
        return Check("python", "ok", detail)
    return Check(
        "python",
        "warning",
        f"{detail}: the pinned versions are for 3.10 to 3.13",
        "make setup PYTHON=python3.12 VENV=.venv-3.12",
    )


def check_package(probe: probes.Probe, outcome: Outcome, versions: Mapping[str, str]) -> Check:
    """Turn the outcome of a package's probe into a check."""
    found = next((f"{versions[name]} ({name})" for name in probe.distributions if name in versions), None)
    if outcome.error is None:
        note = outcome.facts.get("note")
        return Check(probe.name, "ok", "; ".join(text for text in (found, note) if text) or "works")
    if found is None and outcome.missing == probe.module and probe.extra is not None:
        return Check(probe.name, "absent", "not installed", install_extra(probe.extra))
    detail = f"{found or 'not installed'}; {outcome.error}"
    return Check(probe.name, "error", detail, mend(probe, outcome, versions))


def mend(probe: probes.Probe, outcome: Outcome, versions: Mapping[str, str]) -> str:
    """Return the command that repairs a package."""
    error = outcome.error or ""
    if outcome.missing in probes.INSTALLABLE and outcome.missing != probe.module:
        other = probes.INSTALLABLE[outcome.missing]
        return rebuild_mmcv() if other == "onedl-mmcv" else pip(f"install {other}")
    if "libGL" in error or "libgthread" in error:
        version = versions.get("opencv-python-headless") or versions.get("opencv-python")
        pinned = f"=={version}" if version else ""
        return pip(f"install --force-reinstall --no-deps opencv-python-headless{pinned}")
    if probe.name == "mmcv operators":
        return rebuild_mmcv()
    if probe.name == "torchvision" and (wanted := matching_torchvision(versions.get("torch", ""))):
        return pip(f"install --force-reinstall --no-deps torchvision=={wanted}")
    if probe.name == "mmpretrain" and _version_key(versions.get("transformers", "0")) >= (4, 54):
        return pip("install 'transformers>=4.40,<4.54'")
    again = "install --force-reinstall --no-deps" if outcome.missing != probe.module else "install"
    return pip(f"{again} {probe.distributions[0]}")


def check_gpu(torch: Outcome, *, driver: str | None) -> Check:
    """Check that torch sees the machine's GPU; ``driver`` is the NVIDIA driver's version, `None` without a driver."""
    if torch.error is not None:
        return Check("GPU", "warning", "unknown, since torch does not import")
    build, devices = torch.facts["cuda"], torch.facts["devices"]
    if devices:
        return Check("GPU", "ok", f"{', '.join(devices)}; CUDA {build}, driver {driver or 'unknown'}")
    index = "make setup TORCH_INDEX=URL, with the URL of the package index of torch's builds for"
    if driver is not None and build is None:
        return Check("GPU", "warning", f"driver {driver}, but torch is built for the CPU", f"{index} your CUDA version")
    if driver is not None:
        return Check(
            "GPU",
            "warning",
            f"driver {driver}, but torch (CUDA {build}) sees no device: too old a driver, or hidden devices "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')})",
            f"update the driver, or {index} an older CUDA version",
        )
    if build is None:
        return Check("GPU", "ok", "none; torch is built for the CPU")
    return Check("GPU", "ok", f"none (no NVIDIA driver): torch, built for CUDA {build}, runs on the CPU")


def check_mmcv_gpu(mmcv: Outcome, torch: Outcome) -> Check:
    """Check that mmcv's operators run on the GPU if torch sees one; only `nms` is tried."""
    name = "mmcv on the GPU"
    if mmcv.error is not None:
        return Check(name, "absent", "not tried, since the operators do not load")
    if not torch.facts.get("devices"):
        return Check(name, "absent", "no GPU in use")
    if mmcv.facts["cuda_error"] is None:
        return Check(name, "ok", "the operators run on the GPU")
    return Check(name, "error", f"built without CUDA: {mmcv.facts['cuda_error']}", f"FORCE_CUDA=1 {rebuild_mmcv()}")


def check_native(layers: Outcome) -> Check:
    """Check that DTN's compiled CPU kernels are in use."""
    name = "DTN's CPU kernels"
    if layers.error is not None:
        return Check(name, "absent", "not tried, since dtn_det.layers does not import")
    detail = str(layers.facts["native"])
    if layers.facts["native_available"]:
        return Check(name, "ok", detail)
    if "DTN_DET_NATIVE" in detail:
        return Check(name, "warning", f"{detail}: the layer runs in plain PyTorch", "unset DTN_DET_NATIVE")
    fix = "install a C++ compiler (Debian: apt-get install g++), then " + pip(
        f"install --force-reinstall --no-deps --no-build-isolation {source_folder() or 'dtn-det'}"
    )
    return Check(name, "warning", f"{detail}: the layer runs in plain PyTorch, slower on a CPU", fix)


def declared_requirements() -> tuple[str, ...]:
    """Return the requirements of this package with all extras, from the checkout or else from the metadata."""
    folder = source_folder()
    # Prefer the checkout: the metadata of an editable installation may be older. Python 3.10 has no tomllib.
    if folder is not None and sys.version_info >= (3, 11):
        read: Any = importlib.import_module("tomllib")
        project = read.loads((folder / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].values()
        return (*project["dependencies"], *(text for extra in extras for text in extra))
    try:
        return tuple(metadata.requires("dtn-det") or ())
    except metadata.PackageNotFoundError:
        return ()


def check_requirements(versions: Mapping[str, str], declared: Sequence[str]) -> list[Check]:
    """Find installed versions that do not meet the requirements, given as in pyproject.toml."""
    checks = {}
    for text in declared:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        version = versions.get(name)
        if version is None or name == "dtn-det" or wanted.specifier.contains(version, prereleases=True):
            continue
        checks[name] = Check(
            f"{name} version",
            "error",
            f"{version} is installed, dtn-det needs {wanted.specifier}",
            rebuild_mmcv() if name == "onedl-mmcv" else pip(f"install '{wanted.name}{wanted.specifier}'"),
        )
    return list(checks.values())


def check_rivals(versions: Mapping[str, str]) -> list[Check]:
    """Find pairs of installed distributions with the same import name."""
    checks = []
    for ours, other in RIVALS:
        if ours in versions and other in versions:
            again = rebuild_mmcv() if ours == "onedl-mmcv" else pip(f"install --no-deps {ours}=={versions[ours]}")
            checks.append(
                Check(
                    f"{ours} and {other}",
                    "error",
                    f"both are installed and own the same folder ({ours} {versions[ours]}, {other} {versions[other]})",
                    f"{pip(f'uninstall -y {ours} {other}')} && {again}",
                )
            )
    return checks


def check_opencv(versions: Mapping[str, str]) -> Check:
    """Check that all installed distributions of OpenCV have the same version, because they share the folder `cv2`."""
    found = {name: versions[name] for name in OPENCVS if name in versions}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if not found:
        return Check("opencv packages", "absent", "none installed", install_extra("det"))
    if len(set(found.values())) == 1:
        return Check("opencv packages", "ok", listed)
    newest = max(found.values(), key=_version_key)
    wanted = " ".join(f"{name}=={newest}" for name in found)
    return Check(
        "opencv packages",
        "warning",
        f"{listed}: different versions own the same folder",
        pip(f"install --force-reinstall --no-deps {wanted}"),
    )


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of the NVIDIA driver: `unknown` if it cannot be read, `None` if there is no driver."""
    if path.exists():
        match = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", path.read_text())
        return match[0] if match else "unknown"
    return "unknown" if shutil.which("nvidia-smi") else None


def matching_torchvision(torch_version: str) -> str | None:
    """Return the torchvision version for a torch version, such as `0.27.*` for 2.12; `None` if torch is not 2.x."""
    match = re.match(r"2\.(\d+)\.", torch_version)
    return f"0.{int(match[1]) + 15}.*" if match else None


def source_folder() -> Path | None:
    """Return the checkout that this package is imported from; `None` if it is not imported from a checkout."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").exists() else None


def pip(arguments: str) -> str:
    """Return a command line for the pip of this interpreter."""
    return f"{sys.executable} -m pip {arguments}"


def install_extra(extra: str) -> str:
    """Return the command that installs an extra."""
    source = source_folder()
    wanted = f"install --no-build-isolation '{f'{source}[{extra}]' if source else f'dtn-det[{extra}]'}'"
    if extra not in ("det", "all"):
        return pip(wanted)
    return f"{pip(probes.BUILD_TOOLS)} && {pip(wanted)}"


def rebuild_mmcv() -> str:
    """Return the command that compiles mmcv's operators for the installed torch."""
    build = f"install --force-reinstall --no-deps --no-cache-dir --no-build-isolation onedl-mmcv=={MMCV_VERSION}"
    return f"{pip(probes.BUILD_TOOLS)} && {pip(build)}"


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
