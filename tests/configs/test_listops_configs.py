"""The configs of Long ListOps: pairs that differ in the norm alone, their documents, and short runs of the tools."""

from __future__ import annotations

import math
import pickle
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")
pytest.importorskip("transformers", reason="the encoders are those of transformers")

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from rich.console import Console
from torch import nn

from dtn_det.layers import DTN
from dtn_det.sequence import ListOps, write_listops
from dtn_det.sequence.parts import InverseSqrtLR
from dtn_det.training import launch
from dtn_det.training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "dtn_listops"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
ENCODERS = ("transformer", "bigbird", "reformer")
PICO = "pico_1xb32-4k"


def load(name: str) -> Config:
    return load_config(str(FOLDER / f"{name}.py"))


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(cfg.model)


def test_folder_holds_pairs_of_each_encoder() -> None:
    expected = [f"{encoder}{size}" for encoder in ENCODERS for size in ("_1xb32-5k", f"-{PICO}")]
    assert sorted(f"{norm}{name}_listops" for name in expected for norm in ("", "dtn-")) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("dtn-")])
def test_pair_differs_in_the_norm_alone(name: str) -> None:
    plain, dtn = load(name).to_dict(), load(f"dtn-{name}").to_dict()
    assert dtn["model"]["norm_cfg"].pop("type") == "dtn"
    assert plain["model"]["norm_cfg"].pop("type") == "LN"
    assert dtn == plain
    assert plain["model"]["encoder"]["type"] == re.split("[-_]", name)[0]


def test_arenas_settings() -> None:
    """Those of its `base_listops_config.py`, and the learning rate that its schedule makes of 0.05."""
    cfg = load("transformer_1xb32-5k_listops")
    encoder = cfg.model.encoder
    assert (encoder.embed_dims, encoder.num_layers, encoder.num_heads, encoder.mlp_dims) == (512, 6, 8, 2048)
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_iters) == (32, 5000)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.1
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build({**one}, default_args={"optimizer": optimizer}) for one in cfg.param_scheduler]
    rates = []
    for _ in range(3001):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rates[500] == pytest.approx(0.05 * 0.5 / math.sqrt(1000), rel=2e-3)
    for step in (1000, 1500, 3000):
        assert rates[step] == pytest.approx(0.05 / math.sqrt(step), rel=1e-6)


def test_schedule_without_a_warm_up() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    with pytest.raises(ValueError, match="expected begin of at least 1, the last step of a warm-up, got 0"):
        InverseSqrtLR(optimizer, begin=0)


@pytest.mark.parametrize("name", NAMES)
def test_readme_agrees_with_the_config(name: str) -> None:
    cfg = load(name)
    parameters = sum(parameter.numel() for parameter in build(cfg).parameters())
    text = (FOLDER / "README.md").read_text()
    row = re.search(rf"^\| \[{name}\]\(\./{name}\.py\) \| (LN|DTN) \| (\d+) \| ([\d.]+) \|", text, flags=re.M)
    assert row is not None
    norm = "DTN" if name.startswith("dtn-") else "LN"
    assert row.groups() == (norm, str(cfg.train_cfg.max_iters), f"{parameters / 1e6:.2f}")
    for path in re.findall(r"(?:tools|configs)/\S+\.py", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("encoder", ENCODERS)
def test_optimizer_follows_the_authors(encoder: str) -> None:
    cfg = load(f"dtn-{encoder}-{PICO}_listops")
    model = build(cfg)
    assert sum(isinstance(module, DTN) for module in model.modules()) == 2 * cfg.model.encoder.num_layers
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    optimizer = cfg.optim_wrapper.optimizer
    for group in wrapper.optimizer.param_groups:
        key = names[id(group["params"][0])]
        decays = "pos_proj" in key or not re.search("layer_?norm", key, flags=re.IGNORECASE)
        assert (group["weight_decay"] > 0) == decays, key
        assert group["lr"] == pytest.approx((0.1 if "pos_proj" in key else 1.0) * optimizer.lr), key


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listops")
    write_listops(folder, ListOps(train=96, val=40, test=40, min_length=10, max_length=64), 1, Console(quiet=True))
    return folder


def options(iterations: int, name: str) -> list[str]:
    return [
        "--cfg-options",
        f"train_cfg.max_iters={iterations}",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        f"visualizer.name={name}",
    ]


# Reformer has the most to resume: its own random numbers.
@pytest.mark.parametrize(
    "encoder", [name if name == "reformer" else pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS]
)
def test_tools_train_resume_and_test(
    encoder: str, data: Path, train_tool: ModuleType, test_tool: ModuleType, tmp_path: Path
) -> None:
    config = str(FOLDER / f"dtn-{encoder}-{PICO}_listops.py")
    where = ["--data-root", str(data), "--work-dir", str(tmp_path)]
    assert train_tool.main([config, *where, *options(2, f"{tmp_path.name}a")]) == 0
    assert train_tool.main([config, *where, "--resume", *options(4, f"{tmp_path.name}b")]) == 0
    assert (tmp_path / "iter_4.pth").is_file()
    out = tmp_path / "out.pkl"
    assert test_tool.main([config, str(tmp_path / "iter_4.pth"), *where, "--out", str(out)]) == 0
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 40
    assert all(0 <= int(one["pred_label"]) < 10 and one["pred_score"].shape == (10,) for one in predictions)


def test_what_tools_say(data: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(FOLDER / f"transformer-{PICO}_listops.py")
    assert train_tool.main([config, "--data-root", str(tmp_path)]) == 2
    assert "to hold basic_train.tsv, basic_val.tsv, got a folder without" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert train_tool.main([config, "--data-root", str(data), "--amp"]) == 2
        assert "expected a GPU for mixed precision" in capsys.readouterr().err


def complaint(capsys: pytest.CaptureFixture[str], tool: str) -> str:
    """The one line that a tool ends with."""
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith(f"tools/{tool}.py: error: ")]
    return line


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_on_a_broken_row_ends_with_one_message(
    split: str, data: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    with (tmp_path / "data" / f"basic_{split}.tsv").open("a") as file:
        file.write("[MAX 1 12 ]\t2\n")
    number = {"train": 98, "val": 42}[split]
    config = str(FOLDER / f"transformer-{PICO}_listops.py")
    where = ["--data-root", str(tmp_path / "data"), "--work-dir", str(tmp_path / "work")]
    assert train_tool.main([config, *where, *options(2, f"{tmp_path.name}broken")]) == 1
    assert re.search(rf"got '12' in .*basic_{split}\.tsv, line {number}: mend the row", complaint(capsys, "train"))


def test_testing_on_a_broken_row_ends_with_one_message(
    data: Path, test_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "basic_test.tsv").write_text("Source\tTarget\n[MAX 1 2 ]\t12\n")
    name = f"transformer-{PICO}_listops"
    torch.save({"state_dict": build(load(name)).state_dict()}, tmp_path / "weights.pth")
    where = ["--data-root", str(tmp_path / "data"), "--work-dir", str(tmp_path / "work")]
    where += ["--cfg-options", f"visualizer.name={tmp_path.name}broken"]
    assert test_tool.main([str(FOLDER / f"{name}.py"), str(tmp_path / "weights.pth"), *where]) == 1
    assert "got '12' in" in complaint(capsys, "test")


def test_training_with_settings_that_do_not_fit_ends_with_one_message(
    data: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-root", str(data), "--work-dir", str(tmp_path)]
    extra = [*options(2, f"{tmp_path.name}chunk"), "model.encoder.chunk_length=0"]
    assert train_tool.main([str(FOLDER / f"reformer-{PICO}_listops.py"), *where, *extra]) == 1
    assert "expected chunk_length to be an integer of at least 1, got 0: change it" in complaint(capsys, "train")


def test_long_sequences_are_refused_where_they_are_read(data: Path) -> None:
    cfg = load(f"transformer-{PICO}_listops")
    launch.set_data_root(cfg, str(data))
    cfg.val_dataloader.dataset.max_tokens = 12
    from mmengine.registry import DATASETS

    with pytest.raises(ValueError, match=r"expected at most 12 tokens, .* in .*basic_val.tsv, line \d+"):
        DATASETS.build(cfg.val_dataloader.dataset)
