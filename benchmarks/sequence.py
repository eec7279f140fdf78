"""What does one DTN layer cost on sequences, against LayerNorm and the dense L x L form? Forward and backward.

python benchmarks/sequence.py [--device cuda] [--repeats 5]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _measure import argument_parser, interleaved, peak_memory, ratio, setup_line
from layer import DenseDTN
from torch import nn

from dtn_det.layers import DTN

# The Long-Range Arena's width and heads.
CHANNELS, GROUPS = 512, 8
BATCH = 2
LENGTH = 2000
LENGTHS = (1024, 2048, 4096, 8192, 16384)


def build(kind: str, length: int, device: str) -> Callable[[], object]:
    """One forward and backward pass of a norm; ``'padded'`` is DTN on sequences of which a third is padding."""
    norms = {"LayerNorm": nn.LayerNorm, "dense": lambda width: DenseDTN(width, GROUPS)}
    norm: nn.Module = norms.get(kind, lambda width: DTN(width, GROUPS))(CHANNELS)
    norm.to(device)
    x = torch.randn(BATCH, length, CHANNELS, device=device, requires_grad=True)
    grad_y = torch.randn(BATCH, length, CHANNELS, device=device)
    mask = (torch.arange(length, device=device) < length * 2 // 3).expand(BATCH, length)
    arguments: dict[str, object] = {} if kind == "LayerNorm" else {"hw_shape": (1, length)}
    if kind == "padded":
        arguments["mask"] = mask

    def run() -> None:
        x.grad = None
        norm(x, **arguments).backward(grad_y)

    return run


def main() -> None:
    args = argument_parser(__doc__, repeats=5).parse_args()
    print(setup_line(args.device), "\n")
    kinds = ["LayerNorm", "DTN", "padded", "dense"]
    timings = interleaved({kind: build(kind, LENGTH, args.device) for kind in kinds}, args.repeats, args.device)
    memory = {kind: peak_memory(build, kind, LENGTH, args.device, device=args.device) for kind in kinds}
    print(f"{BATCH} x {LENGTH} x {CHANNELS}, {GROUPS} groups, forward and backward:\n")
    print("| norm | ms | dense / it (min to max) | extra memory, MB | dense / it |")
    print("|---|---|---|---|---|")
    for kind in kinds:
        median, low, high = ratio(timings, "dense", kind)
        print(
            f"| {kind} | {1e3 * timings[kind].median:.1f} | {median:.1f} ({low:.1f} to {high:.1f}) | "
            f"{memory[kind] / 1e6:.1f} | {memory['dense'] / memory[kind]:.1f} |",
            flush=True,
        )
    print("\n| L | LayerNorm ms | DTN ms | DTN, padded ms | DTN, microseconds a token | extra memory of DTN, MB |")
    print("|---|---|---|---|---|---|")
    for length in LENGTHS:
        timings = interleaved({kind: build(kind, length, args.device) for kind in kinds[:3]}, args.repeats, args.device)
        extra = peak_memory(build, "DTN", length, args.device, device=args.device)
        times = " | ".join(f"{1e3 * timings[kind].median:.1f}" for kind in kinds[:3])
        rate = 1e6 * timings["DTN"].median / (BATCH * length)
        print(f"| {length} | {times} | {rate:.2f} | {extra / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
