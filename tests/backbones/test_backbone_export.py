"""The backbones as graphs: compiled, exported, and in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("mmdet")

Build = Callable[..., nn.Module]


def test_compiles_as_one_graph(build: Build, backbone_name: str, single_stage: dict) -> None:
    backbone = build(backbone_name, **single_stage)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    x = torch.randn(1, 3, 65, 97)
    for out, reference in zip(compiled(x), backbone(x), strict=True):
        torch.testing.assert_close(out, reference)


def test_torch_export(build: Build, backbone_name: str, single_stage: dict) -> None:
    backbone = build(backbone_name, **single_stage)
    exported = torch.export.export(backbone, (torch.randn(1, 3, 65, 97),)).module()
    x = torch.randn(1, 3, 65, 97)
    for out, reference in zip(exported(x), backbone(x), strict=True):
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx(build: Build, backbone_name: str, single_stage: dict, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    backbone = build(backbone_name, **single_stage)
    path = tmp_path / "backbone.onnx"
    torch.onnx.export(backbone, (torch.randn(1, 3, 65, 97),), path, dynamo=True)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.randn(1, 3, 65, 97)
    outs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for out, reference in zip(outs, backbone(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(out), reference.detach(), rtol=1e-4, atol=1e-5)
