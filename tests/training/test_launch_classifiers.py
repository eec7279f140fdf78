"""Configs of classifiers before their run: outputs, folders of classes, and packages that they need."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
from mmengine.config import Config

from dtn_det.training import launch
from dtn_det.training.config import load_config


def test_classifiers_have_their_own_output_and_visualization() -> None:
    cfg = Config({"default_scope": "mmpretrain", "test_evaluator": {"type": "Accuracy"}, "default_hooks": {}})
    launch.set_output(cfg, "out.pkl")
    assert [metric["type"] for metric in cfg.test_evaluator] == ["Accuracy", "DumpResults"]
    with pytest.raises(ValueError, match=r"default_hooks.visualization.type=VisualizationHook$"):
        launch.enable_visualization(cfg, True, None, 2.0)
    cfg.default_hooks.visualization = {"type": "VisualizationHook", "enable": False}
    launch.enable_visualization(cfg, True, "painted", 3.0)
    assert cfg.default_hooks.visualization.to_dict() == {
        "type": "VisualizationHook",
        "enable": True,
        "interval": 1,
        "show": True,
        "wait_time": 3.0,
        "out_dir": "painted",
    }


def test_folders_of_classes_are_checked(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    dataset = {"type": "CustomDataset", "data_root": str(tmp_path), "data_prefix": "train"}
    cfg = Config({"train_dataloader": {"dataset": dataset}})
    launch.check_data(cfg, ["train_dataloader"])
    cfg.train_dataloader.dataset.data_prefix = "test"
    with pytest.raises(FileNotFoundError, match=r"the data of train_dataloader at '.*/test', got nothing there"):
        launch.check_data(cfg, ["train_dataloader"])


class WithoutMMPretrain(MetaPathFinder):
    """Import as if mmpretrain were not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "mmpretrain":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@pytest.mark.parametrize(
    "text", ['_base_ = "mmpretrain::_base_/default_runtime.py"', 'default_scope = "mmpretrain"'], ids=["base", "scope"]
)
def test_classifiers_need_mmpretrain(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine.config.config.is_installed", lambda package: "mmpretrain" not in package)
    for module in ("mmpretrain", "mmpretrain.models"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [WithoutMMPretrain(), *sys.meta_path])
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ImportError, match=r"needs `mmpretrain`: pip install .dtn-det\[cls\]"):
        load_config(str(tmp_path / "config.py"))


def test_another_package_of_a_base_is_named_by_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine.config.config.is_installed", lambda package: "mmdet" not in package)
    (tmp_path / "config.py").write_text('_base_ = "mmdet::_base_/default_runtime.py"')
    with pytest.raises(ModuleNotFoundError, match=r"mmdet.* is not installed"):
        load_config(str(tmp_path / "config.py"))
