"""How fast and how frugal is one DTN layer, against LayerNorm and the dense N x N form? Forward and backward.

python benchmarks/layer.py [--device cuda] [--repeats 9]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _measure import argument_parser, interleaved, peak_memory, ratio, setup_line
from torch import Tensor, nn

from dtn_det.layers import DTN

DENSE_GRID = (2, 56, 56, 96, 4)
GRIDS = [(8, 14, 14, 384, 6), DENSE_GRID, (1, 200, 334, 96, 3), (1, 100, 167, 192, 6), (1, 50, 84, 384, 12)]
LARGE_GRID = (1, 200, 334, 96, 3)


class DenseDTN(DTN):
    """The exact layer with the whole N x N matrix, in the fewest passes that it takes: two batched products."""

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """``(B, N, C) -> (B, N, C)``."""
        height, width = hw_shape
        rows = torch.arange(height, device=x.device).repeat_interleave(width)
        columns = torch.arange(width, device=x.device).repeat(height)
        dx, dy = columns[:, None] - columns, rows[:, None] - rows
        features = torch.stack([dx, dy, dx * dx + dy * dy], dim=-1).to(x.dtype)
        matrix = (features @ self.pos_proj.weight.T).permute(2, 0, 1).softmax(-1)  # (G, N, N)
        grouped = x.unflatten(-1, (self.num_groups, -1))
        grouped = grouped * (grouped.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        x = grouped.flatten(-2)
        by_group = grouped.transpose(1, 2)  # (B, G, N, D)
        mean = (matrix @ by_group).transpose(1, 2).flatten(-2)
        var = (matrix @ by_group.square()).transpose(1, 2).flatten(-2) - mean.square()
        own_var, own_mean = torch.var_mean(x, -1, keepdim=True)
        depth = self.num_features // self.num_groups
        mean_share = self.mean_norm_weight.sigmoid().repeat_interleave(depth)
        var_share = self.var_norm_weight.sigmoid().repeat_interleave(depth)
        mean = mean_share * own_mean + (1 - mean_share) * mean
        var = var_share * own_var + (1 - var_share) * var
        return self.weight * (x - mean) * (var.clamp_min(0) + self.eps).rsqrt() + self.bias


def build(kind: str, grid: tuple[int, int, int, int, int], device: str) -> Callable[[], object]:
    """One forward and backward pass of a norm on a grid ``(B, H, W, C, G)``."""
    batch, height, width, channels, groups = grid
    norm: nn.Module = {
        "LayerNorm": lambda: nn.LayerNorm(channels),
        "DTN": lambda: DTN(channels, groups),
        "dense": lambda: DenseDTN(channels, groups),
    }[kind]()
    norm.to(device)
    x = torch.randn(batch, height * width, channels, device=device, requires_grad=True)
    grad_y = torch.randn(batch, height * width, channels, device=device)
    arguments = () if kind == "LayerNorm" else ((height, width),)

    def run() -> None:
        x.grad = None
        norm(x, *arguments).backward(grad_y)

    return run


def main() -> None:
    args = argument_parser(__doc__, repeats=9).parse_args()
    print(setup_line(args.device), "\n")
    print("| B x H x W x C, G | LayerNorm ms | DTN ms | DTN / LayerNorm (min to max) | dense / DTN |")
    print("|---|---|---|---|---|")
    for grid in GRIDS:
        kinds = ["LayerNorm", "DTN"] + (["dense"] if grid == DENSE_GRID else [])
        timings = interleaved({k: build(k, grid, args.device) for k in kinds}, args.repeats, args.device)
        median, low, high = ratio(timings, "DTN", "LayerNorm")
        dense = f"{ratio(timings, 'dense', 'DTN')[0]:.0f}x" if "dense" in timings else ""
        batch, height, width, channels, groups = grid
        print(
            f"| {batch} x {height} x {width} x {channels}, {groups} | {1e3 * timings['LayerNorm'].median:.1f} | "
            f"{1e3 * timings['DTN'].median:.1f} | {median:.2f} ({low:.2f} to {high:.2f}) | {dense} |",
            flush=True,
        )
    batch, height, width, channels, _ = LARGE_GRID
    size = 4 * batch * height * width * channels
    print(f"\nPeak extra memory at {height} x {width} x {channels}, forward and backward, in sizes of the input:")
    for kind in ("LayerNorm", "DTN"):
        print(f"  {kind}: {peak_memory(build, kind, LARGE_GRID, args.device, device=args.device) / size:.2f}")


if __name__ == "__main__":
    main()
