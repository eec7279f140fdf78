"""The tools train and test shrunk configs of the project on a small COCO folder, in this process."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_coco import NUM_IMAGES, tiny_config

MASK_RCNN = "mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco"
RETINANET = "retinanet_dtn-pvtv2-b0_fpn_1x_coco"
BIAS = "bbox_head.retina_cls.bias"


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    """What the run of a work-dir logged, in order of time."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, coco: Path, train_tool: ModuleType) -> Callable[[str], Path]:
    """Train a config once and return its folder: `config.py`, `work/epoch_2.pth` and the logs."""
    folders: dict[str, Path] = {}

    def train(name: str) -> Path:
        if name not in folders:
            folder = folders[name] = tmp_path_factory.mktemp(name)
            tiny_config(name).dump(str(folder / "config.py"))
            torch.manual_seed(0)
            arguments = [str(folder / "config.py"), "--work-dir", str(folder / "work"), "--data-root", str(coco)]
            # A test may have built a visualizer of the config's name before, whose folder would take this run's logs.
            named = ["--cfg-options", f"visualizer.name=first_{name}"]
            assert train_tool.main([*arguments, "--auto-scale-lr", *named]) == 0
        return folders[name]

    return train


def test_training_evaluates_boxes_and_masks(trained: Callable[[str], Path]) -> None:
    folder = trained(MASK_RCNN)
    assert (folder / "work" / "epoch_2.pth").is_file()
    log = scalars(folder / "work")
    steps = [entry for entry in log if "loss_mask" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 2 * NUM_IMAGES // 2 + 1))
    (evaluation,) = [entry for entry in log if "coco/bbox_mAP" in entry]
    assert 0 <= evaluation["coco/bbox_mAP"] <= 1
    assert 0 <= evaluation["coco/segm_mAP"] <= 1


def test_learning_rate_is_scaled_to_the_batch(trained: Callable[[str], Path]) -> None:
    # 2 images of 16, after a warm-up of 1000 iterations from a thousandth.
    checkpoint = torch.load(trained(MASK_RCNN) / "work" / "epoch_2.pth", weights_only=False)
    rates = {group["initial_lr"] for group in checkpoint["optimizer"]["param_groups"]}
    assert sorted(rates) == pytest.approx([1e-5 / 8, 1e-4 / 8])


def test_testing_repeats_the_evaluation_and_writes_predictions(
    trained: Callable[[str], Path], coco: Path, test_tool: ModuleType, tmp_path: Path
) -> None:
    folder = trained(MASK_RCNN)
    arguments = [str(folder / "config.py"), str(folder / "work" / "epoch_2.pth"), "--data-root", str(coco)]
    arguments += ["--work-dir", str(tmp_path), "--out", str(tmp_path / "out.pkl"), "--show-dir", "painted"]
    assert test_tool.main(arguments) == 0
    (metrics_file,) = [path for path in tmp_path.glob("*/*.json") if path.parent.name == path.stem]
    metrics = json.loads(metrics_file.read_text())
    (evaluation,) = [entry for entry in scalars(folder / "work") if "coco/bbox_mAP" in entry]
    for key in ("coco/bbox_mAP", "coco/segm_mAP", "coco/bbox_mAP_50"):
        assert metrics[key] == pytest.approx(evaluation[key], abs=2e-3)
    predictions = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert len(predictions) == NUM_IMAGES
    assert {"bboxes", "scores", "labels", "masks"} <= set(predictions[0]["pred_instances"])
    assert len(list(tmp_path.glob("*/painted/*.jpg"))) == NUM_IMAGES


def test_testing_with_mirror_images(
    trained: Callable[[str], Path], coco: Path, test_tool: ModuleType, tmp_path: Path
) -> None:
    folder = trained(RETINANET)
    arguments = [str(folder / "config.py"), str(folder / "work" / "epoch_2.pth"), "--data-root", str(coco), "--tta"]
    arguments += ["--work-dir", str(tmp_path), "--out", str(tmp_path / "out.pkl")]
    assert test_tool.main(arguments) == 0
    assert len(pickle.loads((tmp_path / "out.pkl").read_bytes())) == NUM_IMAGES


def test_twins_learn_the_same_way(trained: Callable[[str], Path]) -> None:
    """From the same seed the LayerNorm twin starts at almost the same loss: init='layernorm' changes little."""
    dtn = scalars(trained(RETINANET) / "work")[0]["loss"]
    twin = scalars(trained(RETINANET.replace("_dtn-", "_")) / "work")[0]["loss"]
    assert dtn == pytest.approx(twin, rel=0.02)


def test_weights_of_the_twin_are_refused(
    trained: Callable[[str], Path],
    coco: Path,
    test_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = trained(RETINANET) / "work" / "epoch_2.pth"
    tiny_config(RETINANET.replace("_dtn-", "_")).dump(str(tmp_path / "twin.py"))
    arguments = [str(tmp_path / "twin.py"), str(checkpoint), "--data-root", str(coco), "--work-dir", str(tmp_path)]
    assert test_tool.main(arguments) == 1
    message = capsys.readouterr().err
    assert f" in {checkpoint}, got others: " in message
    assert re.search(r"unexpected \(backbone\.layers\.\S+\.mean_norm_weight", message)
    assert (
        f"The file is of DTN, the model has LayerNorm there. Test it with its own config instead of {tmp_path}"
        in message
    )


def test_interrupt_before_the_training(
    train_tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_tool, "load_config", interrupt)
    assert train_tool.main(["config.py"]) == 130
    assert capsys.readouterr().err == "interrupted before training began\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model.backbone.dtn_stages=()"],
            r"expected the weights of RetinaNet with \w+ in \S+, got others: \d+ unexpected .*To go on from it, ",
        ),
        (
            ["optim_wrapper.paramwise_cfg=None"],
            r"expected a checkpoint of \S+ to go on from, got \S+epoch_2.pth of another config or other --cfg-options",
        ),
    ],
)
def test_continuing_with_another_config_ends_with_one_message(
    options: list[str],
    message: str,
    trained: Callable[[str], Path],
    coco: Path,
    train_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = trained(RETINANET)
    arguments = [str(folder / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    arguments += ["--resume", str(folder / "work" / "epoch_2.pth"), "--cfg-options", "train_cfg.max_epochs=3"]
    assert train_tool.main([*arguments, f"visualizer.name={tmp_path.name}", *options]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tools/train.py: error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A checkpoint whose second half is missing."""
    path = tmp_path / "cut_off.pth"
    torch.save({"state_dict": {"a": torch.ones(100)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cut_off.pth",
            r"expected .*cut_off\.pth to be a checkpoint, got a damaged file .*: delete it and fetch it again",
        ),
        ("nowhere.pth", r"expected a checkpoint file at .*nowhere\.pth, got none: check the path"),
    ],
)
def test_training_from_weights_that_are_broken_ends_with_one_message(
    name: str,
    message: str,
    cut_off: Path,
    coco: Path,
    train_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = tiny_config(RETINANET)
    cfg.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(cut_off.with_name(name))}
    cfg.visualizer.name = f"broken {name}"
    cfg.dump(str(tmp_path / "config.py"))
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    assert train_tool.main(arguments) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tools/train.py: error: ")]
    assert re.search(message, line)


def test_the_kind_of_weights_is_chosen_for_a_start_alone(
    coco: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_config(RETINANET).dump(str(tmp_path / "config.py"))
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    with pytest.raises(SystemExit):
        train_tool.main([*arguments, "--weights", "plain", "--resume"])
    assert "(load_from), got it with --resume, which continues with all weights" in capsys.readouterr().err
    assert train_tool.main([*arguments, "--weights", "plain"]) == 2
    assert "got a config without load_from: leave --weights out, or add --cfg-options" in capsys.readouterr().err


@pytest.mark.parametrize(("chosen", "value"), [(None, 2.0), ("plain", 1.0)])
def test_training_starts_from_the_chosen_weights(
    chosen: str | None,
    value: float,
    coco: Path,
    train_tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = tiny_config(RETINANET)
    cfg.visualizer.name = f"chosen {chosen}"
    cfg.load_from = str(tmp_path / "both.pth")
    cfg.dump(str(tmp_path / "config.py"))
    values = {"state_dict": 1.0, "ema_state_dict": 2.0}
    torch.save({key: {BIAS: torch.full((9 * 80,), number)} for key, number in values.items()}, cfg.load_from)
    started: list[float] = []

    def train(runner: Any) -> None:
        runner.load_or_resume()
        started.extend(dict(runner.model.named_parameters())[BIAS].tolist())

    monkeypatch.setattr("mmengine.runner.Runner.train", train)
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    assert train_tool.main([*arguments, *(["--weights", chosen] if chosen else [])]) == 0
    assert set(started) == {value}


@pytest.mark.parametrize(
    ("meta", "lacking"),
    [
        ({"epoch": 1, "iter": 2}, "message_hub, optimizer, param_schedulers"),
        ({}, "meta.epoch, meta.iter, message_hub, optimizer, param_schedulers"),
    ],
)
def test_published_weights_are_nothing_to_continue_from(
    meta: dict[str, int],
    lacking: str,
    coco: Path,
    train_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = tiny_config(RETINANET)
    cfg.visualizer.name = f"published {len(meta)}"
    cfg.dump(str(tmp_path / "config.py"))
    torch.save({"meta": meta, "state_dict": {BIAS: torch.zeros(1)}}, tmp_path / "a.pth")
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    assert train_tool.main([*arguments, "--resume", str(tmp_path / "a.pth")]) == 1
    assert f"a.pth without {lacking}, as published weights are: start from" in capsys.readouterr().err


def test_training_from_a_broken_checkpoint_ends_before_the_model_is_built(
    cut_off: Path,
    coco: Path,
    train_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(train_tool.launch, "build_runner")
    tiny_config(RETINANET).dump(str(tmp_path / "config.py"))
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)]
    assert train_tool.main([*arguments, "--cfg-options", f"load_from={cut_off}"]) == 1
    error = capsys.readouterr().err
    assert f"tools/train.py: error: expected a checkpoint, got '{cut_off}', which is not one or was cut off" in error


def test_testing_a_broken_checkpoint_ends_before_the_model_is_built(
    cut_off: Path, coco: Path, test_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_config(RETINANET).dump(str(tmp_path / "config.py"))
    assert test_tool.main([str(tmp_path / "config.py"), str(cut_off), "--data-root", str(coco)]) == 2
    assert "tools/test.py: error: expected a checkpoint, got" in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(
    coco: Path, train_tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(train_tool.launch, "build_runner", fail)
    tiny_config(RETINANET).dump(str(tmp_path / "config.py"))
    with pytest.raises(ValueError, match="a bug"):
        train_tool.main([str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(coco)])
