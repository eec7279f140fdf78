"""What does another norm cost in training? Steps of AdamW on timm's ViT-S at 224, converted, against LayerNorm.

python benchmarks/converted_vit.py [--norms dtn] [--device cuda] [--batch 8] [--repeats 9]
"""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from _measure import argument_parser, interleaved, setup_line, speeds, training_step

from dtn_det import convert_norm
from dtn_det.layers import TOKEN_NORMS

BASELINE = "LayerNorm"


def build(norm: str, model: str, batch: int, device: str) -> Callable[[], object]:
    """One training step, under bfloat16 autocast on a GPU."""
    torch.manual_seed(0)
    network = timm.create_model(model).train()
    if norm != BASELINE:
        convert_norm(network, norm, **({"init": "local"} if norm == "dtn" else {}))
    return training_step(network, torch.randn(batch, 3, 224, 224, device=device), device)


def main() -> None:
    parser = argument_parser(__doc__, repeats=9)
    parser.add_argument("--norms", nargs="+", default=["dtn"], choices=list(TOKEN_NORMS))
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    print(setup_line(args.device))
    names = [BASELINE, *args.norms]
    timings = interleaved(
        {name: build(name, args.model, args.batch, args.device) for name in names}, args.repeats, args.device
    )
    first, *others = speeds(timings, BASELINE, args.batch)
    print(f"{args.model}, batch {args.batch}: {first}", *others, sep="\n")


if __name__ == "__main__":
    main()
