"""The classifiers of CIFAR-10: a pair that differs in the norm alone, its documents, and short runs of the tools."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="the backbone needs MMDetection")
pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn
from warm_python import WarmPython

from dtn_det.checkpoints.load import load_weights
from dtn_det.errors import CheckpointError
from dtn_det.layers import DTN
from dtn_det.robustness.classification.models.mmpretrain import load_mmpretrain
from dtn_det.training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "dtn_cifar"
SWIN, SWIN_POSITIONS, VIT = (
    "swin-pico-p4-w4_8e_cifar10",
    "swin-pico-ape-p4-w4_3e_cifar10",
    "vit-pico-p4_3e_cifar10",
)
PAIRS = [(name, f"dtn-{name}") for name in (SWIN, SWIN_POSITIONS, VIT)]
NAMES = [name for pair in PAIRS for name in pair]
NUM_CLASSES = 10


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.py"


def shrink(cfg: Config) -> Config:
    if "backbone" in cfg.model:
        cfg.model.backbone.embed_dims = 8
        cfg.model.head.in_channels = 16
    else:
        cfg.model.model.embed_dim = 8
    return cfg


def build(cfg: Config) -> nn.Module:
    # As the tools do, without the Runner's default scope.
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


@pytest.mark.parametrize(("layer_norm", "dynamic"), PAIRS)
def test_pair_differs_in_the_norm_alone(layer_norm: str, dynamic: str) -> None:
    plain, dtn = (load_config(str(path_of(name))).to_dict() for name in (layer_norm, dynamic))
    if layer_norm == VIT:
        assert dtn["model"]["norm_cfg"].pop("type") == "dtn"
        assert plain["model"]["norm_cfg"].pop("type") == "LN"
    else:
        assert dtn["model"]["backbone"].pop("dtn_cfg") == {"init": "local"}
        assert dtn["model"]["backbone"].pop("dtn_stages") == (0, 1)
        assert plain["model"]["backbone"].pop("dtn_stages") == ()
    assert dtn == plain


def test_folder_holds_the_pairs() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", [SWIN_POSITIONS, VIT])
@pytest.mark.parametrize("norm", ["LN", "dtn", "bn"])
def test_options_that_the_documents_name(name: str, norm: str) -> None:
    if name == VIT:
        options = {"model.spt": True, "model.lsa": True, "model.norm_cfg.type": norm}
    else:
        options = {"model.backbone.spt": True, "model.backbone.lsa": True, "model.backbone.dtn_cfg.type": norm}
    cfg = shrink(load_config(str(path_of(name if norm == "LN" else f"dtn-{name}")), options))
    model = build(cfg)
    assert any(isinstance(module, DTN) for module in model.modules()) == (norm == "dtn")
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scales = [parameter for key, parameter in model.named_parameters() if key.endswith(".scale")]
    groups = {id(group["params"][0]): group for group in wrapper.optimizer.param_groups}
    assert scales
    assert all(groups[id(scale)]["weight_decay"] == 0 for scale in scales)


@pytest.mark.parametrize("name", NAMES)
def test_readme_agrees_with_the_config(name: str) -> None:
    cfg = load_config(str(path_of(name)))
    parameters = sum(parameter.numel() for parameter in build(cfg).parameters())
    text = (FOLDER / "README.md").read_text()
    row = re.search(rf"\| \[{name}\]\(\./{name}\.py\) \| (LN|DTN) \| (\d+) \| ([\d.]+) \|", text)
    assert row is not None
    assert row.groups() == (
        "DTN" if name.startswith("dtn-") else "LN",
        str(cfg.train_cfg.max_epochs),
        f"{parameters / 1e6:.2f}",
    )
    for path in re.findall(r"(?:tools|configs)/\S+\.py", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", NAMES)
def test_one_step_trains_the_whole_model(name: str) -> None:
    torch.manual_seed(0)
    cfg = shrink(load_config(str(path_of(name))))
    model = build(cfg).train()
    norms = [norm for norm in model.modules() if isinstance(norm, DTN)]
    assert len(norms) == (0 if not name.startswith("dtn-") else 6 if VIT in name else 4)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        key = names[id(group["params"][0])]
        decays = not re.search(r"norm\d*\.(?!pos_proj)", key)
        assert (group["weight_decay"] > 0) == decays, key
        rate = 0.1 if "pos_proj" in key else 1.0
        assert group["lr"] == pytest.approx(rate * cfg.optim_wrapper.optimizer.lr), key
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    batch = {"inputs": torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), "data_samples": samples}
    losses = model.train_step(batch, wrapper)
    assert losses["loss"].item() == pytest.approx(np.log(NUM_CLASSES), rel=0.1)
    # A constant on all positions drops out of their softmax.
    unchanged = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    assert {key for key in unchanged if not key.endswith("pos_proj.bias")} == set()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of each class in each split, in the layout of the whole set."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(NUM_CLASSES):
            folder = tmp_path / "cifar10" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "cifar10"


@pytest.mark.parametrize("name", [pytest.param(SWIN, marks=pytest.mark.slow), f"dtn-{SWIN}", f"dtn-{VIT}"])
def test_tools_train_and_test_and_the_sweep_loads(
    name: str, images: Path, train_tool: ModuleType, test_tool: ModuleType, tmp_path: Path
) -> None:
    cfg = shrink(load_config(str(path_of(name))))
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.visualizer.name = f"{name}_{tmp_path.name}"
    config = tmp_path / "shrunk.py"
    cfg.dump(str(config))
    work = tmp_path / "work"
    where = ["--data-root", str(images), "--work-dir", str(work)]
    assert train_tool.main([str(config), *where]) == 0
    (log,) = work.glob("*/*.log")
    assert (" - TimmClassifier: 6 norms become dtn, 3 stay" in log.read_text()) == (VIT in name)
    checkpoint = work / "epoch_1.pth"
    painted = ["--out", str(tmp_path / "out.pkl"), "--show-dir", str(tmp_path / "painted")]
    assert test_tool.main([str(config), str(checkpoint), *where, *painted]) == 0
    predictions = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert len(predictions) == 2 * NUM_CLASSES
    assert len(list((tmp_path / "painted").glob("*.png"))) > 0

    classifier = load_mmpretrain(f"{config}@{checkpoint}", NUM_CLASSES)
    assert classifier.view.size is None
    prediction = predictions[0]
    pixels = torch.from_numpy(np.array(Image.open(prediction["img_path"]))).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = classifier.forward(pixels).softmax(dim=1)[0]
    torch.testing.assert_close(scores, prediction["pred_score"], atol=1e-5, rtol=0)


def test_weights_of_another_architecture_are_refused(
    images: Path, test_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build(load_config(str(path_of(SWIN)))).state_dict()
    torch.save({"state_dict": state}, tmp_path / "swin.pth")
    where = ["--data-root", str(images), "--work-dir", str(tmp_path / "work")]
    assert test_tool.main([str(path_of(VIT)), str(tmp_path / "swin.pth"), *where]) == 1
    message = capsys.readouterr().err
    assert f"expected the weights of TimmClassifier with VisionTransformer in {tmp_path / 'swin.pth'}" in message
    assert "got others: 56 missing (cls_token, pos_embed, patch_embed.proj.weight, ...)" in message
    assert "none of which the model has. Test it with its own config instead of" in message
    assert test_tool.main([str(path_of(f"dtn-{SWIN}")), str(tmp_path / "swin.pth"), *where]) == 1
    assert "DTNSwinTransformer" in capsys.readouterr().err
    state["backbone.stages.0.blocks.0.norm1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "narrow.pth")
    assert test_tool.main([str(path_of(SWIN)), str(tmp_path / "narrow.pth"), *where]) == 1
    assert "norm1.weight (3,) instead of (64,)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "trained", "message"),
    [
        (VIT, f"dtn-{VIT}", r"\d+ unexpected \(.*norm1\.\w+.*The file is of DTN, the model has LayerNorm there"),
        (f"dtn-{VIT}", VIT, r"\d+ missing \(.*norm1\.mean_norm_weight.*of a model with LayerNorm or another norm"),
        (SWIN, f"dtn-{SWIN}", r"\d+ unexpected \(.*norm1\.\w+.*The file is of DTN, the model has LayerNorm there"),
        (VIT, "scales", r"1 unexpected \(blocks.0.attn.scale\)"),
    ],
)
def test_weights_of_the_twin_are_refused(
    name: str, trained: str, message: str, images: Path, test_tool: ModuleType, tmp_path: Path
) -> None:
    model = build(load_config(str(path_of(name))))
    if trained == "scales":  # of LSA
        state = {**model.state_dict(), "blocks.0.attn.scale": torch.ones(4)}
    else:
        state = build(load_config(str(path_of(trained)))).state_dict()
    torch.save({"state_dict": state}, tmp_path / "twin.pth")
    with pytest.raises(CheckpointError, match=rf"in .*twin\.pth, got others: {message}"):
        load_weights(model, str(tmp_path / "twin.pth"))
    where = ["--data-root", str(images), "--work-dir", str(tmp_path / "work")]
    assert test_tool.main([str(path_of(name)), str(tmp_path / "twin.pth"), *where]) == 1


def test_weights_of_modules_for_training_alone_are_left_aside(tmp_path: Path) -> None:
    model = build(load_config(str(path_of(VIT))))
    model.model.norm.register_buffer("old", torch.zeros(1), persistent=False)
    extra = ["steps", "auxiliary_head.weight", "norm.old"]
    torch.save({**model.state_dict(), **{key: torch.zeros(1) for key in extra}}, tmp_path / "more.pth")
    (remark,) = load_weights(model, str(tmp_path / "more.pth")).remarks
    assert remark.examples == ("auxiliary_head.weight",)


def test_command_line_finds_the_backbone(warm_libraries: WarmPython) -> None:
    """It leaves registration out of `import dtn_det`, which is what `custom_imports` does."""
    script = (
        "from dtn_det.training.config import load_config\n"
        f"cfg = load_config({str(path_of('dtn-' + SWIN))!r})\n"
        "from mmpretrain.registry import MODELS\n"
        "print(type(MODELS.build(cfg.model).backbone).__name__)\n"
    )
    run = warm_libraries.run(["-c", script])
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "DTNSwinTransformer"
