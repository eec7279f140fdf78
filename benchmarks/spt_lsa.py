"""What do SPT and LSA cost in training? Steps of AdamW on a ViT-S at 224 and on a small ViT at 32, in one run.

python benchmarks/spt_lsa.py [--models vit-s small] [--device cuda] [--repeats 9]
"""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from _measure import argument_parser, interleaved, setup_line, speeds, training_step

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
    images = torch.randn(batch, 3, options["img_size"], options["img_size"], device=device)
    return training_step(network, images, device)


def main() -> None:
    parser = argument_parser(__doc__, repeats=9)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batch", type=int, help="images a step; by default 8 at 224 and 64 at 32")
    args = parser.parse_args()
    print(setup_line(args.device))
    for model in args.models:
        batch = args.batch or MODELS[model][2]
        runs = {variant: build(variant, model, batch, args.device) for variant in VARIANTS}
        timings = interleaved(runs, args.repeats, args.device)
        first, *others = speeds(timings, PLAIN, batch)
        print(f"{model}, batch {batch}: {first}", *others, sep="\n  ")


if __name__ == "__main__":
    main()
