"""What manifests tell of models besides: cost and training."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as arrow
import pytest
import torch
from torch import nn

from dtn_det.corruptions.cells import Cell
from dtn_det.cost.facts import ModelFacts, training_facts
from dtn_det.cost.flops import dtn_flops, forward_flops
from dtn_det.errors import StoreError
from dtn_det.layers import DTN
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, differences

FACTS = ModelFacts(1_500_000_000, "224x224", {"epochs": "12", "optimizer": "AdamW"})
MODEL = ModelManifest("net", "timm:net", "weights", 5, {"batch_size": "4"}, {"torch": "2"})
CONFIG = {
    "train_cfg": {"max_epochs": 12},
    "optim_wrapper": {"optimizer": {"type": "torch.optim.AdamW", "lr": 1e-4, "weight_decay": 0.05}},
    "train_dataloader": {"batch_size": 2},
    "model": {"backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": "https://host/folder/swin_tiny.pth"}}},
}


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # He et al., arXiv:1512.03385, table 1: 1.8e9 of ResNet-18.
        ("resnet18", 224, 1.814e9),
        # 12 blocks of 197 tokens of 192 channels, the patches, and the classifier.
        ("deit_tiny_patch16_224", 224, 12 * (12 * 197 * 192**2 + 2 * 197**2 * 192) + 196 * 768 * 192 + 192 * 1000),
    ],
)
def test_flops_of_classifiers(name: str, size: int, expected: float) -> None:
    model = pytest.importorskip("timm").create_model(name).eval()
    assert forward_flops(model, model, torch.zeros(1, 3, size, size)) == pytest.approx(expected, rel=1e-3)


def test_flops_of_dtn_are_those_of_its_filters() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = DTN(16, num_groups=4)
            self.linear = nn.Linear(16, 8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.norm(images.flatten(2).transpose(1, 2), (6, 5)))

    net = Net()
    found = forward_flops(net, net, torch.randn(1, 16, 6, 5))
    assert found == 30 * 16 * 8 + dtn_flops(6, 5, 16, 4).total
    assert "forward" not in vars(net.norm)


def test_a_model_that_fails_has_no_flops() -> None:
    assert forward_flops(nn.Linear(4, 2), nn.Linear(4, 2), torch.zeros(1, 3, 8, 8)) is None


def test_training_as_the_config_and_the_checkpoint_tell() -> None:
    found = training_facts(CONFIG, {"meta": {"epoch": 12, "seed": 7, "iter": 999}})
    assert found == {
        "epochs": "12",
        "optimizer": "AdamW",
        "lr": "0.0001",
        "weight decay": "0.05",
        "batch size per process": "2",
        "seed": "7",
        "pretrained": "swin_tiny.pth",
    }


def test_training_that_was_cut_short_or_counted_in_iterations() -> None:
    assert training_facts(CONFIG, {"meta": {"epoch": 3}})["epochs"] == "3 of 12"
    iterations = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 90_000}, "randomness": {"seed": 0}}
    assert training_facts(iterations, {"meta": {"iter": 90_000}}) == {"iterations": "90000", "seed": "0"}


@pytest.mark.parametrize("checkpoint", [{}, {"state_dict": {}}, {"meta": "a text"}])
def test_weights_of_another_training_say_nothing(checkpoint: dict[str, object]) -> None:
    assert training_facts(CONFIG, checkpoint) == {}


@pytest.mark.parametrize(
    "config", [{}, {"train_cfg": None, "optim_wrapper": 5, "train_dataloader": [], "model": {"backbone": None}}]
)
def test_odd_configs_say_nothing(config: dict[str, object]) -> None:
    assert training_facts(config, {"meta": {"mmengine_version": "1"}}) == {}


def test_facts_go_through_the_store_and_are_not_compared(tmp_path: Path) -> None:
    manifest = StoreManifest("classification", "d", "h", 2, "all", "c", (Cell("clean", 0),), 2)
    store = Store.create(tmp_path, manifest, arrow.table({"key": ["0", "1"]}))
    store.add_model(MODEL).with_facts(FACTS)
    assert store.model("net").manifest.facts == FACTS
    assert store.add_model(MODEL).manifest.facts == FACTS
    assert not differences(store.model("net").manifest.to_dict(), MODEL.to_dict())


def test_a_store_of_an_earlier_version_has_no_facts() -> None:
    values = MODEL.to_dict()
    del values["facts"]
    assert not ModelManifest.from_dict(values).facts


@pytest.mark.parametrize("facts", ["much", {"flops": "many"}, {"training": {"epochs": 3}}, {"colour": "red"}])
def test_damaged_facts_are_told(facts: object, tmp_path: Path) -> None:
    manifest = StoreManifest("classification", "d", "h", 2, "all", "c", (Cell("clean", 0),), 2)
    store = Store.create(tmp_path, manifest, arrow.table({"key": ["0", "1"]}))
    path = store.add_model(MODEL).folder / "model.json"
    path.write_text(json.dumps({**MODEL.to_dict(), "facts": facts}))
    with pytest.raises(StoreError, match="got one that is damaged"):
        store.models()
