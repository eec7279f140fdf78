"""What do SPT and LSA cost in training? Steps of AdamW on a ViT-S at 224 and on a small ViT at 32, in one run.

python benchmarks/spt_lsa.py [--models vit-s small] [--device cuda] [--repeats 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import timm
import torch
from _measure import interleaved, ratio, setup_line
from torch.nn import functional as F

from dtn_det.conversion import convert_attention, convert_tokenization

PLAIN = "plain"
VARIANTS = (PLAIN, "SPT", "LSA", "SPT+LSA")
# The small one is the paper's ViT for images of 32 x 32 pixels.
SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 9, "num_heads": 12, "mlp_ratio": 2}
MODELS = {"vit-s": ("vit_small_patch16_224", {"img_size": 224}, 8), "small": ("vit_tiny_patch16_224", SMALL, 64)}


def build(variant: str, model: str, batch: int, device: str) -> Callable[[], object]:
    """One training step, under bfloat16 autocast on a GPU."""
    torch.manual_seed(0)
    name, options, _ = MODELS[model]
    network = timm.create_model(name, **options).train()
    if "SPT" in variant:
        convert_tokenization(network, "spt")
    if "LSA" in variant:
        convert_attention(network, "lsa")
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device == "cuda")
    images = torch.randn(batch, 3, options["img_size"], options["img_size"], device=device)
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
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, help="images a step; by default 8 at 224 and 64 at 32")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(setup_line(args.device))
    for model in args.models:
        batch = args.batch or MODELS[model][2]
        runs = {variant: build(variant, model, batch, args.device) for variant in VARIANTS}
        timings = interleaved(runs, args.repeats, args.device)
        print(f"{model}, batch {batch}: {PLAIN} {batch / timings[PLAIN].median:.1f} images/s")
        for variant in VARIANTS[1:]:
            median, low, high = ratio(timings, variant, PLAIN)
            speed = batch / timings[variant].median
            print(f"  {variant}: {speed:.1f} images/s, time {median:.3f} ({low:.3f} to {high:.3f}) of {PLAIN}'s")


if __name__ == "__main__":
    main()
