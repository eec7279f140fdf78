"""The positional matrix of DTN, factorised by axis.

DTN mixes tokens with ``P_g[t, s] = softmax_s(a_x dx + a_y dy + a_d (dx^2 + dy^2))``. Here ``(dx, dy)`` is the position
of the output token ``t`` minus the position of the source token ``s`` (Shao et al., "Dynamic Token Normalization
Improves Vision Transformers", arXiv:2112.02624, Eq. 6). The exponent is a sum of a term in ``dx`` and a term in ``dy``,
and both range over the full axis. So ``P_g`` is exactly the Kronecker product of an ``H x H`` and a ``W x W``
row-stochastic matrix. This file builds those two small matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionProjection(nn.Module):
    """The three positional coefficients ``(a_x, a_y, a_d)`` of each group.

    It is not an ``nn.Linear``, because models such as Swin and PVT re-initialise all their ``nn.Linear`` modules. This
    would overwrite the local initialisation. The state-dict names ``weight`` and ``bias`` are the same as in the
    released code.

    Args:
        num_groups: Number of groups ``G``.

    ``bias`` ``(G,)`` exists because checkpoints have it. The bias cancels in the softmax, so its gradient is 0.
    """

    def __init__(
        self, num_groups: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups, 3, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_groups, device=device, dtype=dtype))

    def reset_parameters(self, strength: float = 1.0) -> None:
        """Set the coefficients to the result of :func:`local_coefficients`, and the bias to 0."""
        with torch.no_grad():
            self.weight.copy_(local_coefficients(self.weight.shape[0], strength))
            self.bias.zero_()

    def forward(self) -> Tensor:
        """Return the coefficients ``(G, 3)``.

        The bias is multiplied by 0: it cancels anyway, but DistributedDataParallel fails if a parameter is not part of
        the graph.
        """
        return self.weight + 0.0 * self.bias.unsqueeze(1)

    def extra_repr(self) -> str:
        """Return the number of groups, for ``print``."""
        return f"num_groups={self.weight.shape[0]}"


def local_coefficients(num_groups: int, strength: float = 1.0) -> Tensor:
    """Make coefficients that centre the kernel of each group on one neighbour of the token.

    With ``s = floor(sqrt(G))``, the kernels of the first ``s * s`` groups are centred on the offsets of an ``s x s``
    lattice, row by row: ``a_d = -1``, ``a_x = 2 (column - centre)``, ``a_y = 2 (row - centre)``, all times
    ``strength``. Each is a Gaussian around its offset, with a standard deviation of ``sqrt(1 / (2 strength))`` tokens.
    The remaining groups are random in the released code; here they are centred on the token itself.

    Args:
        num_groups: Number of groups ``G``.
        strength: Factor of all coefficients (``locality_strength`` in the paper's code).

    Returns:
        Tensor ``(G, 3)`` of ``(a_x, a_y, a_d)``, float32 on the CPU.
    """
    side = int(num_groups**0.5)
    centre = (side - 1) / 2
    index = torch.arange(num_groups)
    on_lattice = index < side * side
    column = torch.where(on_lattice, index % side - centre, torch.zeros(()))
    row = torch.where(on_lattice, index.div(side, rounding_mode="floor") - centre, torch.zeros(()))
    return strength * torch.stack([2 * column, 2 * row, -torch.ones(num_groups)], dim=1)


def axis_logits(linear: Tensor, quadratic: Tensor, length: int) -> Tensor:
    """Compute the exponents ``a d + a_d d^2`` of one axis, with ``d = t - s``.

    Args:
        linear: ``(G,)``, the coefficient of ``d``: ``a_x`` or ``a_y``.
        quadratic: ``(G,)``, the coefficient of ``d^2``: ``a_d``.
        length: Number of positions ``L`` of the axis.

    Returns:
        ``(G, L, L)``, indexed by group, output position ``t`` and source position ``s``.
    """
    position = torch.arange(length, device=linear.device, dtype=linear.dtype)
    distance = position[:, None] - position[None, :]  # (L, L)
    return linear[:, None, None] * distance + quadratic[:, None, None] * distance.square()


def axis_attention(linear: Tensor, quadratic: Tensor, length: int, valid: Tensor | None = None) -> Tensor:
    """Compute the row-stochastic matrix of one axis: the softmax of :func:`axis_logits` over source positions.

    Args:
        linear: See :func:`axis_logits`, also for ``quadratic`` and ``length``.
        valid: ``(B, L)`` booleans; positions that are False get weight 0. A row that is False everywhere is treated as
            True everywhere.

    Returns:
        ``(G, L, L)``, or ``(B, G, L, L)`` with ``valid``.
    """
    logits = axis_logits(linear, quadratic, length)
    if valid is not None:
        valid = valid | ~valid.any(dim=1, keepdim=True)
        logits = logits.masked_fill(~valid[:, None, None, :], -torch.inf)  # (B, G, L, L)
    return logits.softmax(dim=-1)
