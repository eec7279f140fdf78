"""Converted models in training: where the loss starts, and several processes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conversion_models import small_vit
from ranks import run_ranks
from torch.nn import functional as F
from warm_python import WarmPython

from dtn_det import convert_norm

pytest.importorskip("timm")


def test_the_loss_starts_within_one_percent_of_layer_norms() -> None:
    """Patterns of which a ViT learns most in a few steps, so that its norms are far from their start."""
    model = small_vit(depth=4)
    images, labels = torch.randn(5, 3, 16, 32).repeat(8, 1, 1, 1), torch.arange(5).repeat(8)
    images = images + 0.5 * torch.randn_like(images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(16):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    twin = convert_norm(copy.deepcopy(model), layers="blocks").eval()
    model.eval()
    with torch.no_grad():
        before, after = (F.cross_entropy(network(images), labels).item() for network in (model, twin))
    assert before < 1.0
    assert after == pytest.approx(before, rel=0.01)


# Each process sees half of the batch. DTN works within an image, so the averaged gradients have to be those of the
# whole batch in one process.
WORKER = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, sys.argv[2])
from conversion_models import move_off_start, small_vit
from dtn_det import convert_norm

rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
torch.manual_seed(0)
network = convert_norm(small_vit(), layers="blocks", init="local")
move_off_start(network)
network.set_grad_checkpointing(True)
model = DistributedDataParallel(network, find_unused_parameters=False)
images = torch.randn(4, 3, 16, 32)
for step in range(2):  # the second step finds unused parameters of the first
    model.zero_grad()
    model(images[2 * rank : 2 * rank + 2]).square().mean().backward()
averaged = {name: p.grad.clone() for name, p in network.named_parameters()}
network.zero_grad()
network(images).square().mean().backward()
for name, p in network.named_parameters():
    torch.testing.assert_close(averaged[name], p.grad, rtol=1e-3, atol=1e-5, msg=lambda m: f"{name}: {m}")
dist.destroy_process_group()
"""


def test_gradients_are_those_of_one_process(tmp_path: Path, warm_python: WarmPython) -> None:
    support = str(Path(__file__).parents[1] / "support")
    run_ranks(warm_python.load("timm", "dtn_det"), ["-c", WORKER, str(tmp_path / "store"), support])
