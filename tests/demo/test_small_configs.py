"""The configs of the demonstration and of BCCD: pairs, documents, and a short run on the real images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

import dtn_det  # noqa: F401  (registers the backbones)
from dtn_det.training import launch

ROOT = Path(__file__).resolve().parents[2]
PAIRS = {
    "dtn_demo": ("atss_swin-nano_fpn_shapes", "atss_dtn-swin-nano_fpn_shapes"),
    "dtn_bccd": ("atss_swin-nano_fpn_24e_bccd", "atss_dtn-swin-nano_fpn_24e_bccd"),
}
NAMES = [(folder, name) for folder, names in PAIRS.items() for name in names]


def resolve(folder: str, name: str) -> Config:
    return Config.fromfile(str(ROOT / "configs" / folder / f"{name}.py"))


@pytest.mark.parametrize("folder", PAIRS)
def test_a_pair_differs_in_the_norm_alone(folder):
    layer_norm, dtn = (resolve(folder, name).to_dict() for name in PAIRS[folder])
    assert dtn["model"]["backbone"].pop("dtn_cfg") == {"init": "local"}
    assert dtn["model"]["backbone"].pop("dtn_stages") == (0, 1, 2, 3)
    assert layer_norm["model"]["backbone"].pop("dtn_stages") == ()
    assert dtn == layer_norm


@pytest.mark.parametrize("folder", PAIRS)
def test_a_folder_holds_its_pair(folder):
    assert sorted(path.stem for path in (ROOT / "configs" / folder).glob("*.py")) == sorted(PAIRS[folder])


@pytest.mark.parametrize(("folder", "name"), NAMES)
def test_readme_agrees_with_the_config(folder, name):
    cfg = resolve(folder, name)
    parameters = sum(parameter.numel() for parameter in MODELS.build(cfg.model).parameters())
    text = (ROOT / "configs" / folder / "README.md").read_text()
    row = re.search(rf"\| \[{name}\]\(\./{name}\.py\) \| (LN|DTN) \| (\d+) \| ([\d.]+) \|", text)
    assert row is not None
    assert row.groups() == ("DTN" if "dtn" in name else "LN", str(cfg.train_cfg.max_epochs), f"{parameters / 1e6:.2f}")


@pytest.mark.parametrize(("folder", "name"), NAMES)
def test_no_norm_decays_and_the_positions_do(folder, name):
    from mmengine.optim import build_optim_wrapper

    cfg = resolve(folder, name)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        key = names[id(group["params"][0])]
        if key.endswith("pos_proj.weight"):
            assert group["lr"] == pytest.approx(0.1 * cfg.optim_wrapper.optimizer.lr)
            assert group["weight_decay"] > 0
        elif re.search(r"backbone.*norm", key) and "pos_proj" not in key:
            assert group["weight_decay"] == 0


def test_classes_are_those_of_the_generator():
    from dtn_det.demo.shapes import CLASSES

    assert resolve("dtn_demo", PAIRS["dtn_demo"][0]).classes == tuple(CLASSES)


@pytest.fixture
def bccd(shared_dir):
    folder = shared_dir / "data" / "bccd"
    if not folder.is_dir():
        pytest.skip(f"no BCCD images at {folder}")
    return folder


@pytest.fixture
def four_images(bccd, tmp_path):
    """The first images of each split, in the layout of the whole set."""
    root = tmp_path / "bccd"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(bccd / "images")
    for split in ("train", "val", "test"):
        content = json.loads((bccd / "annotations" / f"instances_{split}.json").read_text())
        content["images"] = content["images"][:4]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "name", [name if "_dtn-" in name else pytest.param(name, marks=pytest.mark.slow) for name in PAIRS["dtn_bccd"]]
)
def test_bccd_trains_and_tests_on_the_real_images(name, four_images, tmp_path):
    cfg = resolve("dtn_bccd", name)
    launch.set_data_root(cfg, str(four_images))
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.work_dir = str(tmp_path / "work")
    cfg.visualizer.name = name
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert (tmp_path / "work" / "epoch_1.pth").is_file()
    metrics = runner.test()
    assert metrics == {} or 0 <= metrics["coco/bbox_mAP"] <= 1


def test_bccd_annotations_have_the_classes_of_the_configs(bccd):
    for split in ("train", "val", "test"):
        content = json.loads((bccd / "annotations" / f"instances_{split}.json").read_text())
        names = tuple(category["name"] for category in content["categories"])
        assert names == resolve("dtn_bccd", PAIRS["dtn_bccd"][0]).classes


def test_python_finds_the_tools_of_the_documented_commands():
    for folder in PAIRS:
        text = (ROOT / "configs" / folder / "README.md").read_text()
        for path in re.findall(r"(?:tools|configs)/\S+\.py", text):
            assert (ROOT / path).is_file(), path
