"""Exported detectors: their layouts, what their input is made of, and exports that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dtn_det.errors import InputError
from dtn_det.robustness.detection.models.loading import load_pixel_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
FLOAT, BYTES, WHOLE = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT64


def write(
    path: Path,
    shape: list[Any],
    constants: dict[str, np.ndarray[Any, Any]],
    *,
    kind: int = FLOAT,
    sizes: bool = False,
    metadata: dict[str, str] | None = None,
) -> str:
    """Write a model with constant outputs; RT-DETR's `parts` of the size are its boxes."""
    inputs = [helper.make_tensor_value_info("images", kind, shape)]
    nodes = [helper.make_node("Cast", ["images"], ["seen"], to=FLOAT)]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", WHOLE, [1, 2]))
        nodes.append(helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=FLOAT))
        nodes.append(helper.make_node("Tile", ["size", "twice"], ["scale"]))
        nodes.append(helper.make_node("Mul", ["parts", "scale"], ["boxes"]))
    tensors = [numpy_helper.from_array(np.array([1, 2], np.int64), "twice")] * sizes
    outputs = []
    for name, value in constants.items():
        tensors.append(numpy_helper.from_array(value, name if name == "parts" else f"{name}_"))
        if name != "parts":
            nodes.append(helper.make_node("Identity", [f"{name}_"], [name]))
        kind_of = WHOLE if value.dtype == np.int64 else FLOAT
        outputs.append(helper.make_tensor_value_info("boxes" if name == "parts" else name, kind_of, value.shape))
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return f"onnx:{path}"


def floats(*rows: list[float]) -> np.ndarray[Any, Any]:
    return np.array(rows, np.float32)


BOXES, SCORES, LABELS = floats([1, 2, 30, 40], [4, 4, 900, 20]), np.float32([0.5, 0.25]), np.int64([1, 3])


@pytest.mark.parametrize("kind", [FLOAT, BYTES])
@pytest.mark.parametrize("batch", [[], [1]])
def test_exports_of_torchvision(tmp_path: Path, kind: int, batch: list[int]) -> None:
    outputs = {"boxes": BOXES, "labels": LABELS, "scores": SCORES}
    found = load_pixel_model(write(tmp_path / "own.onnx", [*batch, 3, "h", "w"], outputs, kind=kind), CPU)
    assert (found.name, found.source, found.adapter) == ("own", "onnx:own.onnx", "onnxruntime")
    assert found.protocol["layout"].startswith("torchvision")
    assert len(found.weights_hash) == 64
    (one, other) = found.detect([IMAGE, IMAGE])
    # Clipped to the image.
    assert one["boxes"].tolist() == [[1, 2, 30, 40], [4, 4, 64, 20]]
    assert one["scores"].tolist() == other["scores"].tolist() == [0.5, 0.25]
    assert one["category_ids"].tolist() == [1, 3]


def test_exports_of_rt_detr_know_the_size_of_the_image(tmp_path: Path) -> None:
    outputs = {"parts": floats([0.25, 0.5, 0.5, 1])[None], "labels": np.int64([[7]]), "scores": floats([0.5])}
    found = load_pixel_model(write(tmp_path / "own.onnx", [1, 3, 32, 32], outputs, sizes=True), CPU)
    (one,) = found.detect([IMAGE])
    assert one["boxes"].tolist() == [[16, 24, 32, 48]]
    assert one["category_ids"].tolist() == [7]
    assert found.classes.names == {}


def test_exports_of_ultralytics_are_fitted_into_their_input_and_name_their_classes(tmp_path: Path) -> None:
    # 64 x 48 becomes 32 x 24 within 32 x 32: half the size, and 4 rows of grey above.
    rows = floats([4, 8, 16, 20, 0.5, 1], [0, 0, 0, 0, 0, 0])[None]
    metadata = {"names": "{0: 'cat', 1: 'dog'}", "imgsz": "[32, 32]", "stride": "32"}
    found = load_pixel_model(write(tmp_path / "own.onnx", [1, 3, 32, 32], {"output0": rows}, metadata=metadata), CPU)
    (one,) = found.detect([IMAGE])
    assert one["boxes"].tolist() == [[8, 8, 32, 32]]
    assert one["category_ids"].tolist() == [1]
    assert found.classes.names == {0: "cat", 1: "dog"}


STEPS = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "size": [32, 100], "keep_ratio": True},
    {"type": "Normalize", "mean": [1, 2, 3], "std": [2, 2, 2], "to_rgb": True},
    {"type": "Pad", "size_divisor": 16, "pad_val": {"img": 0}},
    {"type": "Collect", "keys": ["img"]},
]


def pipeline(folder: Path, steps: list[dict[str, Any]]) -> Path:
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"pipeline": {"tasks": [{"name": "Preprocess", "transforms": steps}]}}))
    return path


def test_exports_of_mmdeploy_get_the_input_of_their_pipeline(tmp_path: Path) -> None:
    from dtn_det.robustness.detection.models.onnx_inputs import of_mmdeploy

    prepared = of_mmdeploy(pipeline(tmp_path, STEPS))(IMAGE)
    # 64 x 48 becomes 43 x 32, its short side 32, and is padded to 48 x 32.
    wanted = (cv2.resize(IMAGE, (43, 32)).astype(np.float32) - np.float32([1, 2, 3])) / 2
    assert prepared.pixels.shape == (3, 32, 48)
    np.testing.assert_allclose(prepared.pixels[:, :, :43], wanted.transpose(2, 0, 1), atol=1e-5)
    assert (prepared.pixels[:, :, 43:] == 0).all()
    dets = floats([21.5, 16, 43, 32, 0.5], [0, 0, 0, 0, 0])[None]
    outputs = {"dets": dets, "labels": np.int64([[2, -1]])}
    (one,) = load_pixel_model(write(tmp_path / "own.onnx", [1, 3, "h", "w"], outputs), CPU).detect([IMAGE])
    np.testing.assert_allclose(one["boxes"], [[32, 24, 64, 48]], atol=1e-4)
    assert one["scores"].tolist() == [0.5]
    assert one["category_ids"].tolist() == [2]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"type": "Resize", "size": [32, 48], "keep_ratio": False}, r"got \[32, 48\], whose order is not stated"),
        ({"type": "CenterCrop", "crop_size": 3}, "expected Resize, Normalize and Pad as steps in .* got 'CenterCrop'"),
        ({"type": "Normalize"}, r"expected the pipeline.json of MMDeploy .*KeyError: 'mean'"),
    ],
)
def test_pipelines_that_do_not_tell_the_input_are_refused(tmp_path: Path, step: dict[str, Any], said: str) -> None:
    pipeline(tmp_path, [*STEPS, step])
    outputs = {"dets": np.zeros((1, 1, 5), np.float32), "labels": np.int64([[0]])}
    with pytest.raises(InputError, match=said):
        load_pixel_model(write(tmp_path / "own.onnx", [1, 3, "h", "w"], outputs), CPU)


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ([1, 3, 64, 64], {"output0": np.zeros((1, 84, 21), np.float32)}),
        ([1, 3, 64, 64], {"output0": np.zeros((1, 3, 6), np.float32)}),
        ([1, 3, 64, 64], {"boxes": BOXES, "labels": LABELS, "scores": SCORES}),
        ([1, 3, "h", "w"], {"dets": np.zeros((1, 1, 5), np.float32), "labels": np.int64([[0]])}),
        (["n", 7], {"boxes": BOXES, "labels": LABELS, "scores": SCORES}),
    ],
)
def test_raw_heads_and_unknown_inputs_are_refused_by_name(tmp_path: Path, shape: Any, outputs: Any) -> None:
    source = write(tmp_path / "own.onnx", shape, outputs)
    with pytest.raises(InputError, match="expected an export with final boxes") as error:
        load_pixel_model(source, CPU)
    for name, value in outputs.items():
        assert f"{name} {list(value.shape)}" in str(error.value)
    assert "wrap it as python:MODULE:FUNCTION" in str(error.value)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an ONNX file"):
        load_pixel_model(f"onnx:{tmp_path / 'missing.onnx'}", CPU)
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match="expected an ONNX model in"):
        load_pixel_model(f"onnx:{tmp_path / 'text.onnx'}", CPU)
