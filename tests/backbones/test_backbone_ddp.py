"""The backbones under DistributedDataParallel: two processes, gloo, no search for unused parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks
from warm_python import WarmPython

pytest.importorskip("mmdet")

# Each process sees half of the batch. The norms work within an image, so the averaged gradients have to be those of the
# whole batch in one process. A frozen stage and checkpointing are what trips DistributedDataParallel elsewhere.
WORKER = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import dtn_det
from mmdet.registry import MODELS

rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
swin = dict(type="DTNSwinTransformer", embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4))
pvt = dict(type="DTNPyramidVisionTransformer", embed_dims=8, num_layers=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2])
pvtv2 = {**pvt, "type": "DTNPyramidVisionTransformerV2"}
for config in (swin, pvt, pvtv2):
    torch.manual_seed(0)
    backbone = MODELS.build({**config, "with_cp": True, "frozen_stages": 1, "drop_path_rate": 0.0})
    model = DistributedDataParallel(backbone, find_unused_parameters=False)
    model.train()
    images = torch.randn(4, 3, 65, 97)

    def loss(outs):
        return torch.stack([(out * torch.linspace(-1, 1, out[0].numel()).view_as(out[0])).sum() for out in outs]).sum()

    for step in range(2):  # the second step finds unused parameters of the first
        model.zero_grad()
        loss(model(images[2 * rank : 2 * rank + 2])).backward()
    averaged = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.requires_grad}
    backbone.zero_grad()
    (loss(backbone(images)) / 2).backward()
    assert averaged
    for name, p in backbone.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(averaged[name], p.grad, rtol=1e-3, atol=1e-4, msg=lambda m: f"{name}: {m}")
        else:
            assert p.grad is None, name
dist.destroy_process_group()
"""


def test_gradients_are_those_of_one_process(tmp_path: Path, warm_mmdet: WarmPython) -> None:
    run_ranks(warm_mmdet, ["-c", WORKER, str(tmp_path / "store")])
