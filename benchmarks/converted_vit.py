"""What does another norm cost in training? Steps of AdamW on timm's ViT-S at 224, converted, against LayerNorm.

python benchmarks/converted_vit.py [--norms dtn] [--device cuda] [--batch 8] [--repeats 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import timm
import torch
from _measure import interleaved, ratio, setup_line
from torch.nn import functional as F

from dtn_det import convert_norm
from dtn_det.layers import TOKEN_NORMS

BASELINE = "LayerNorm"


def build(norm: str, model: str, batch: int, device: str) -> Callable[[], object]:
    """One training step, under bfloat16 autocast on a GPU."""
    torch.manual_seed(0)
    network = timm.create_model(model).train()
    if norm != BASELINE:
        convert_norm(network, norm, **({"init": "local"} if norm == "dtn" else {}))
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device == "cuda")
    images = torch.randn(batch, 3, 224, 224, device=device)
    labels = torch.randint(0, 1000, (batch,), device=device)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norms", nargs="+", default=["dtn"], choices=list(TOKEN_NORMS))
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(setup_line(args.device))
    names = [BASELINE, *args.norms]
    timings = interleaved(
        {name: build(name, args.model, args.batch, args.device) for name in names}, args.repeats, args.device
    )
    print(f"{args.model}, batch {args.batch}: {BASELINE} {args.batch / timings[BASELINE].median:.1f} images/s")
    for name in args.norms:
        median, low, high = ratio(timings, name, BASELINE)
        speed = args.batch / timings[name].median
        print(f"{name}: {speed:.1f} images/s, time {median:.3f} ({low:.3f} to {high:.3f}) of {BASELINE}'s")


if __name__ == "__main__":
    main()
