"""What all tests share: seeds, threads, hypothesis profiles, the data folder, and what is skipped where."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import few_threads  # before the libraries whose threads it limits
import hypothesis
import numpy as np
import plain_configs  # noqa: F401  changes what MMEngine does
import pytest
import torch
from tool_scripts import load_tool
from warm_python import WarmPython

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]

# `pytest --hypothesis-profile=full`, as in `make test-all`, tries hypothesis' own number of examples, 100.
_SAME_EXAMPLES = "CI" in os.environ
hypothesis.settings.register_profile("full", deadline=None, derandomize=_SAME_EXAMPLES, print_blob=_SAME_EXAMPLES)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("full"), max_examples=15)
hypothesis.settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """Obey SIGINT also where the tests run in the background, which ignores it and lets children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """Fix the number of threads, so that sums are made in the same order on every machine."""
    torch.set_num_threads(few_threads.COUNT)


@pytest.fixture(scope="module", autouse=True)
def _frozen_libraries() -> None:
    """Spare collections the objects of the libraries: MMEngine collects garbage for each data set that it reads."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_default_scope() -> Iterator[None]:
    """Forget the scope of MMEngine's registries that a test or a shared fixture has set."""
    _forget_default_scope()
    yield
    _forget_default_scope()


def _forget_default_scope() -> None:
    module = sys.modules.get("mmengine.registry.default_scope")
    if module is not None:
        module.DefaultScope._instance_dict.clear()


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with parity vectors and real data, which is not part of the project."""
    folder = Path(os.environ.get("DTN_DET_SHARED", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder} (set DTN_DET_SHARED to one)")
    return folder


@pytest.fixture(scope="session")
def train_tool() -> ModuleType:
    pytest.importorskip("mmdet", reason="the tool needs MMDetection")
    return load_tool("train")


@pytest.fixture(scope="session")
def test_tool() -> ModuleType:
    pytest.importorskip("mmdet", reason="the tool needs MMDetection")
    return load_tool("test")


@pytest.fixture(scope="session")
def warm_libraries() -> Iterator[WarmPython]:
    """Starts programs in processes that have imported what MMDetection needs, and nothing of OpenMMLab or ours."""
    names = ("torch.distributed.optim", "cv2", "imgaug.augmenters", "matplotlib.pyplot", "scipy.interpolate",
             "scipy.optimize", "transformers.masking_utils", "transformers.modeling_utils",
             "transformers.trainer_pt_utils")  # fmt: skip
    python = WarmPython().load("plain_configs", *(name for name in names if find_spec(name.partition(".")[0])))
    yield python
    python.close()


@pytest.fixture(scope="session")
def warm_python(warm_libraries: WarmPython) -> Iterator[WarmPython]:
    """Starts programs in processes of their own that need not import the libraries again."""
    python = warm_libraries.branch()
    yield python
    python.close()


@pytest.fixture(scope="session")
def warm_mmdet(warm_python: WarmPython) -> WarmPython:
    """As `warm_python`, with MMDetection and what its models and data sets load."""
    pytest.importorskip("mmdet", reason="needs MMDetection")
    return warm_python.load("dtn_det", "mmdet.models", "mmdet.datasets", "mmdet.utils", "dtn_det.backbones")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the images of corrupted folders in this process: for tests that are about other things than processes."""
    from dtn_det.corrupted_folders import writing
    from dtn_det.corrupted_folders.worker import write_image

    monkeypatch.setattr(
        writing, "write_images", lambda job, images, workers: (write_image(job, image) for image in images)
    )


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a few images in COCO's format."""
    from tiny_coco import write_coco

    return write_coco(tmp_path_factory.mktemp("data") / "coco")
