"""What does DTN cost in a stack of ViT-S blocks at 14 x 14 tokens of 384 channels? Forward and backward.

python benchmarks/vit_blocks.py [--device cuda] [--batch 8] [--repeats 9]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _measure import argument_parser, interleaved, ratio, setup_line
from torch import Tensor, nn
from torch.nn import functional as F

from dtn_det.layers import DTN

CHANNELS, HEADS, GRID = 384, 6, (14, 14)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.takes_grid = norm == "DTN"
        make = (lambda: DTN(CHANNELS, HEADS)) if self.takes_grid else (lambda: nn.LayerNorm(CHANNELS))
        self.norm1, self.norm2 = make(), make()
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.mlp = nn.Sequential(nn.Linear(CHANNELS, 4 * CHANNELS), nn.GELU(), nn.Linear(4 * CHANNELS, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C) -> (B, N, C)``."""
        grid = (GRID,) if self.takes_grid else ()
        batch, tokens, channels = x.shape
        # (B, N, 3, heads, D) -> (3, B, heads, N, D)
        qkv = self.qkv(self.norm1(x, *grid)).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(batch, tokens, channels)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x, *grid))


def build(norm: str, depth: int, batch: int, device: str) -> Callable[[], object]:
    """One forward and backward pass of a stack of blocks, under bfloat16 autocast on a GPU."""
    torch.manual_seed(0)
    stack = nn.Sequential(*(Block(norm) for _ in range(depth))).to(device)
    x = torch.randn(batch, GRID[0] * GRID[1], CHANNELS, device=device, requires_grad=True)

    def run() -> None:
        stack.zero_grad()
        x.grad = None
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = stack(x).float().square().mean()
        loss.backward()

    return run


def main() -> None:
    parser = argument_parser(__doc__, repeats=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    args = parser.parse_args()
    print(setup_line(args.device))
    runs = {norm: build(norm, args.depth, args.batch, args.device) for norm in ("LayerNorm", "DTN")}
    timings = interleaved(runs, args.repeats, args.device)
    median, low, high = ratio(timings, "DTN", "LayerNorm")
    print(
        f"{args.depth} blocks, batch {args.batch}: LayerNorm {timings['LayerNorm'].median:.3f} s, DTN "
        f"{timings['DTN'].median:.3f} s, DTN / LayerNorm {median:.3f} ({low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
