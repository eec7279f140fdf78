"""What does DTN cost in a whole Swin-T backbone on a detection-sized image? Time and peak memory, forward and backward.

python benchmarks/swin_backbone.py [--device cuda] [--shape 800 1344] [--repeats 5]

On a GPU under bfloat16 autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _measure import argument_parser, interleaved, peak_memory, ratio, setup_line

from dtn_det.backbones import DTNSwinTransformer


def build(norm: str, shape: tuple[int, int], device: str) -> Callable[[], object]:
    """One forward and backward pass of a backbone on one image."""
    torch.manual_seed(0)
    backbone = DTNSwinTransformer(
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        dtn_stages=(0, 1, 2, 3) if norm == "DTN" else (),
    )
    backbone.init_weights()
    backbone.train().to(device)
    image = torch.randn(1, 3, *shape, device=device)

    def run() -> None:
        backbone.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = sum(out.float().square().mean() for out in backbone(image))
        loss.backward()

    return run


def main() -> None:
    parser = argument_parser(__doc__, repeats=5)
    parser.add_argument("--shape", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"))
    args = parser.parse_args()
    print(setup_line(args.device))
    shape = tuple(args.shape)
    runs = {norm: build(norm, shape, args.device) for norm in ("LayerNorm", "DTN")}
    timings = interleaved(runs, args.repeats, args.device)
    median, low, high = ratio(timings, "DTN", "LayerNorm")
    print(
        f"Swin-T at {shape[0]} x {shape[1]}: LayerNorm {timings['LayerNorm'].median:.2f} s, DTN "
        f"{timings['DTN'].median:.2f} s, DTN / LayerNorm {median:.3f} ({low:.3f} to {high:.3f})"
    )
    memory = {n: peak_memory(build, n, shape, args.device, device=args.device) for n in ("LayerNorm", "DTN")}
    print(
        f"Peak memory: LayerNorm {memory['LayerNorm'] / 2**30:.2f} GiB, DTN {memory['DTN'] / 2**30:.2f} GiB, "
        f"DTN / LayerNorm {memory['DTN'] / memory['LayerNorm']:.3f}"
    )


if __name__ == "__main__":
    main()
