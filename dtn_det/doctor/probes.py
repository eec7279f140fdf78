"""The probes of `dtn-det doctor`: code that tries each package, and its execution in a separate process.

The process is separate, because a compiled package that does not match torch may crash it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BUILD_TOOLS: Final = "install 'setuptools>=80,<82' wheel ninja psutil packaging"
"""Arguments of pip that install what the build of mmcv needs."""

INSTALLABLE: Final = {
    "mmcv": "onedl-mmcv",
    "mmengine": "onedl-mmengine",
    "mmdet": "onedl-mmdetection",
    "cv2": "opencv-python-headless",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
}
"""The distribution to install for a module, by import name, if a probe of another package fails because the module is
missing.
"""


@dataclass(frozen=True)
class Probe:
    """Code that tries a package.

    Attributes:
        module: Import name of the package. A `ModuleNotFoundError` for it means that the package is not installed.
        distributions: Names of the distributions that contain the module; the first is the one to install.
        extra: Extra of dtn-det that installs the package; `None` if the package is always required.
        code: The code to run; see :func:`run_probe`.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    extra: str | None
    code: str


_TORCH = """
import torch
assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8.0, "torch multiplies matrices wrongly"
facts["cuda"] = torch.version.cuda
facts["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
facts["note"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
"""
_LAYERS = """
import torch
from dtn_det.layers import DTN
from dtn_det.layers.kernels import cpu
layer = DTN(8, num_groups=2)
assert torch.isfinite(layer(torch.randn(1, 6, 8), hw_shape=(2, 3))).all(), "the layer gives values that are not finite"
status = cpu.status()
facts["native"], facts["native_available"] = status.detail, status.available
"""
_TORCHVISION = """
import torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1], [4.0, 4.0, 5.0, 5.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
assert kept.tolist() == [0, 2], f"nms kept {kept.tolist()} where [0, 2] is right"
facts["note"] = "its operators run"
"""
_MMCV = """
import torch
import mmcv._ext
from mmcv.ops import deform_conv2d, nms, roi_align
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1], [4.0, 4.0, 5.0, 5.0]])
scores = torch.tensor([0.9, 0.8, 0.7])
kept = nms(boxes, scores, 0.5)[1]
assert kept.tolist() == [0, 2], f"nms kept {kept.tolist()} where [0, 2] is right"
pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]]), (2, 2))
assert torch.allclose(pooled, torch.ones(1, 1, 2, 2)), "roi_align of ones is not one"
convolved = deform_conv2d(torch.ones(1, 1, 4, 4), torch.zeros(1, 18, 4, 4), torch.ones(1, 1, 3, 3), 1, 1, 1)
assert float(convolved[0, 0, 1, 1]) == 9.0, "deform_conv2d without offsets is not a convolution"
facts["note"] = "nms, roi_align and deform_conv2d run"
facts["cuda_error"] = None
if torch.cuda.is_available():
    try:
        nms(boxes.cuda(), scores.cuda(), 0.5)
    except Exception as error:
        facts["cuda_error"] = str(error).splitlines()[0]
"""
_MMDET = """
import mmdet.models
import dtn_det.backbones
from mmdet.registry import MODELS
names = [name for name in MODELS.module_dict if name.startswith("DTN")]
assert names, "no DTN backbone in MMDetection's registry"
facts["note"] = f"{len(names)} DTN backbones registered"
"""
_CV2 = """
import cv2, numpy
assert cv2.resize(numpy.ones((4, 4, 3), numpy.uint8), (2, 2)).shape == (2, 2, 3)
"""
_HOTCOCO = """
import hotcoco, numpy
boxes = numpy.array([[0.0, 0.0, 4.0, 4.0]])
assert hotcoco.primitives.bbox_iou(boxes, boxes, numpy.array([False]))[0, 0] == 1, "computes IoUs wrongly"
"""
_NUMBA = """
import numba
double = numba.njit(lambda value: 2 * value)
assert double(3) == 6, "compiled code computes wrongly"
facts["note"] = "compiles"
"""
_IMAGECORRUPTIONS = """
import numpy
from imagecorruptions import corrupt
assert corrupt(numpy.full((64, 64, 3), 128, numpy.uint8), corruption_name="gaussian_noise").shape == (64, 64, 3)
"""


def _imported(module: str, distribution: str, extra: str) -> Probe:
    return Probe(module, module, (distribution,), extra, f"import {module}")


PROBES: Final = (
    Probe("torch", "torch", ("torch",), None, _TORCH),
    Probe("dtn_det.layers", "dtn_det", ("dtn-det",), None, _LAYERS),
    Probe("numpy", "numpy", ("numpy",), None, "import numpy"),
    Probe("torchvision", "torchvision", ("torchvision",), "det", _TORCHVISION),
    _imported("mmengine", "onedl-mmengine", "det"),
    Probe("mmcv operators", "mmcv", ("onedl-mmcv", "mmcv", "mmcv-lite"), "det", _MMCV),
    Probe("mmdet", "mmdet", ("onedl-mmdetection", "mmdet"), "det", _MMDET),
    Probe("opencv", "cv2", ("opencv-python-headless", "opencv-python"), "det", _CV2),
    Probe("hotcoco", "hotcoco", ("hotcoco",), "det", _HOTCOCO),
    _imported("faster_coco_eval", "faster-coco-eval", "det"),
    _imported("safetensors", "safetensors", "det"),
    _imported("rich", "rich", "cli"),
    _imported("pandas", "pandas", "cli"),
    _imported("tabulate", "tabulate", "cli"),
    _imported("timm", "timm", "cls"),
    _imported("transformers", "transformers", "cls"),
    Probe("mmpretrain", "mmpretrain", ("onedl-mmpretrain", "mmpretrain"), "cls", "import mmpretrain.models"),
    Probe("numba", "numba", ("numba",), "corruptions", _NUMBA),
    Probe("scipy", "scipy", ("scipy",), "corruptions", "import scipy.ndimage, scipy.fft"),
    Probe("pillow", "PIL", ("pillow",), "corruptions", "import PIL.Image, PIL.ImageFont"),
    Probe("imagecorruptions", "imagecorruptions", ("imagecorruptions-imaug",), "imagecorruptions", _IMAGECORRUPTIONS),
)
"""The probes of `dtn-det doctor` in the order of its report."""

_MARK = "dtn-det probe: "
# The facts are the last line of the output, because packages may print lines before it.
_WRAPPER = """
import json, sys
facts = {{}}
{code}
sys.stdout.flush()
print("\\n{mark}" + json.dumps(facts))
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a probe.

    Attributes:
        facts: The dictionary `facts` that the code has filled; empty if the code failed.
        error: The last line of the traceback, or how the process ended; `None` if the code ran to its end.
        missing: Name of a module that is not installed, if this is the reason of the failure; otherwise `None`.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    missing: str | None = None


def run_probe(code: str, timeout: float = 180.0) -> Outcome:
    """Run code in a new process of this interpreter.

    Args:
        code: Python statements, which may add JSON values to a dictionary `facts`.
        timeout: Time limit of the process, in seconds.

    Returns:
        The facts, or the reason of the failure. No error is raised, whatever the code does.
    """
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    program = _WRAPPER.format(code=code, mark=_MARK)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=f"did not end within {timeout:g} s")
    if done.returncode < 0:
        return Outcome(error=f"crashed with {_signal_name(-done.returncode)}")
    if done.returncode > 0:
        return _failure(done.stderr, done.returncode)
    _, mark, answer = done.stdout.rpartition(_MARK)
    if not mark:
        return Outcome(error="ended the process without a word")
    return Outcome(facts=json.loads(answer))


def _failure(stderr: str, returncode: int) -> Outcome:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    error = lines[-1] if lines else f"ended with exit code {returncode}"
    missing = None
    if error.startswith("ModuleNotFoundError: No module named "):
        missing = error.split("'")[1]
    return Outcome(error=error, missing=missing)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
