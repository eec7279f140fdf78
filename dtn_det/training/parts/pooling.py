"""A neck for classifiers whose backbone ends without a norm."""

from __future__ import annotations

from torch import Tensor, nn


class NormPooling(nn.Module):
    """LayerNorm of every token, then their mean.

    MMDetection's PVT leaves out the last norm of the classifier, since a detector's neck takes the maps as they are.

    Args:
        in_channels: Channels of the last map.
        eps: Of the norm.
    """

    def __init__(self, in_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=eps)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Maps ``(B, C_i, H_i, W_i)``, of which the last counts, to ``(B, C)``."""
        return (self.norm(maps[-1].flatten(2).transpose(1, 2)).mean(dim=1),)
