from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mmdet", reason="the tools need MMDetection")

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def train_tool() -> ModuleType:
    return load_tool("train")


@pytest.fixture(scope="session")
def test_tool() -> ModuleType:
    return load_tool("test")


@pytest.fixture(scope="session")
def prepare_tool() -> ModuleType:
    return load_tool("prepare_small_data")


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_coco import write_coco

    return write_coco(tmp_path_factory.mktemp("data") / "coco")
