"""What `import dtn_det` does with and without MMDetection, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_python import WarmPython

import dtn_det

needs_mmdet = pytest.mark.skipif(importlib.util.find_spec("mmdet") is None, reason="needs MMDetection")

ROOT = Path(dtn_det.__file__).parents[1]
BLOCKED = ("mmdet", "mmcv", "mmengine", "mmpretrain", "timm", "safetensors", "pandas", "rich", "cv2")
USE_LAYER = """
import torch
from dtn_det.layers import DTN
assert DTN(8, 2)(torch.randn(2, 6, 8), (2, 3)).shape == (2, 6, 8)
"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(warm_libraries: WarmPython) -> Run:
    """Runs code in a process that has imported nothing of OpenMMLab or ours, with folders that come first."""

    def start(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
        return warm_libraries.run(["-c", code], env=env)

    return start


def test_layers_need_torch_alone(run: Run) -> None:
    block = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    result = run(block + "import warnings; warnings.simplefilter('error', UserWarning)" + USE_LAYER)
    assert result.returncode == 0, result.stderr


def test_layers_leave_mmdetection_and_the_graph_compiler_alone() -> None:
    others = "{'mmengine', 'mmcv', 'mmdet', 'cv2', 'torch._dynamo', 'triton'}"
    code = "import sys" + USE_LAYER + f"assert not {others} & set(sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stderr


@needs_mmdet
@pytest.mark.parametrize(
    "failure",
    ["raise OSError('undefined symbol')", pytest.param("assert False, 'mmcv too new'", marks=pytest.mark.slow)],
)
def test_broken_mmdet_is_named_with_the_doctor_where_a_backbone_is_built(
    run: Run, tmp_path: Path, failure: str
) -> None:
    for package in ("mmdet", "mmcv"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(failure)
    build = "from mmengine.registry import MODELS\nMODELS.build(dict(type='DTNSwinTransformer'))"
    result = run("import warnings; warnings.simplefilter('error', UserWarning)" + USE_LAYER + build, tmp_path)
    assert result.returncode != 0
    assert "dtn-det doctor" in result.stderr
    assert failure.split("'")[1] in result.stderr


@needs_mmdet
def test_missing_mmcv_counts_as_broken(run: Run) -> None:
    build = "from mmengine.registry import MODELS\nMODELS.build(dict(type='DTNSwinTransformer'))"
    result = run("import sys; sys.modules['mmcv'] = None" + USE_LAYER + build)
    assert "dtn-det doctor" in result.stderr


@needs_mmdet
@pytest.mark.parametrize("scope", ["mmengine", "mmdet", pytest.param("mmpretrain", marks=pytest.mark.slow)])
def test_names_are_found_in_any_scope_whatever_is_imported_first(run: Run, scope: str) -> None:
    pytest.importorskip(scope)
    code = f"""
from {scope}.registry import DATASETS, MODELS, TRANSFORMS
import dtn_det
from dtn_det._registry import NAMES
assert all(MODELS.get(name) is not None for name in NAMES["MODELS"])
assert TRANSFORMS.get("ImageCorruption") is not None
assert DATASETS.get("ListOps") is not None
assert type(MODELS.build(dict(type="DTN", num_features=8, num_groups=2))).__name__ == "DTN"
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


@needs_mmdet
def test_custom_imports_suffice_after_the_layers_were_imported(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['dtn_det'], allow_failed_imports=False)\n"
        "default_scope = 'mmdet'\n"
        "models = [dict(type='DTNSwinTransformer', embed_dims=8, depths=(1,), num_heads=(1,), strides=(4,),\n"
        "               out_indices=(0,), dtn_stages=(0,)),\n"
        "          dict(type='DTNPyramidVisionTransformer', embed_dims=8),\n"
        "          dict(type='DTNPyramidVisionTransformerV2', embed_dims=8)]\n"
    )
    code = f"""
from dtn_det.layers import DTN
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
cfg = Config.fromfile({str(config)!r})
from mmdet.registry import MODELS
for model in cfg.models:
    assert type(MODELS.build(model)).__name__ == model.type
    assert ROOT.get("mmdet." + model.type) is MODELS.get(model.type)
    assert MODELS.get(model.type).__name__ == model.type  # of the class, once it has been built
from mmcv.cnn import build_norm_layer
assert type(build_norm_layer(dict(type="DTN", num_groups=4), 64)[1]) is DTN
import importlib, dtn_det
importlib.reload(dtn_det)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_version_is_that_of_the_project_file(project_root: Path) -> None:
    project = (project_root / "pyproject.toml").read_text()
    declared = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert declared is not None
    assert dtn_det.__version__ == declared[1]
