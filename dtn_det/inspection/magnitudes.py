"""How large tokens are after LayerNorm, instance norm and DTN: the heat maps of the paper's Figure 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dtn_det.layers import DTN
from dtn_det.layers.plain import Moments, dynamic_token_norm, intra_token_moments, normalize, split_groups


@dataclass(frozen=True)
class Magnitudes:
    """Sizes of the same tokens before a norm and after each of three, all ``(G, H, W)``.

    The size is the root mean square over the channels of a group: the norm of the token's embedding in each head, which
    the paper draws, over the square root of its width. The layer's learned scale and shift are left out, for they
    belong to one norm alone.

    Attributes:
        tokens: The norm's input.
        layer_norm: After LayerNorm.
        instance_norm: After instance norm: statistics of each channel over all tokens.
        dtn: After DTN with the layer's parameters.
    """

    tokens: NDArray[np.float32]
    layer_norm: NDArray[np.float32]
    instance_norm: NDArray[np.float32]
    dtn: NDArray[np.float32]


def token_magnitudes(tokens: Tensor, norm: nn.LayerNorm, num_groups: int) -> Magnitudes:
    """Normalise tokens in three ways and measure them.

    Args:
        tokens: ``(H, W, C)``, the input of a norm, without prefix tokens.
        norm: The norm. A LayerNorm has no gates and kernels: DTN's are then those of its start (``init='local'``, gates
            at 0.5), with LayerNorm's ``eps``.
        num_groups: Groups of that DTN. A DTN has its own number.

    Returns:
        The sizes of each group of channels.
    """
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    dtn = norm if isinstance(norm, DTN) else starting_dtn(norm, num_groups).to(tokens)
    groups = dtn.num_groups
    with torch.no_grad():
        one, zero = torch.ones_like(tokens[0, 0]), torch.zeros_like(tokens[0, 0])
        own = intra_token_moments(tokens, unbiased=False)
        channel_var, channel_mean = torch.var_mean(tokens, dim=(0, 1), correction=0)
        mixed = dynamic_token_norm(
            tokens.unsqueeze(0),
            dtn.pos_proj.weight.to(tokens),
            None if dtn.mean_norm_weight is None else dtn.mean_norm_weight.to(tokens),
            dtn.var_norm_weight.to(tokens),
            one,
            zero,
            eps=dtn.eps,
            head_rms=dtn.head_rms,
            unbiased=dtn.unbiased,
        )
        return Magnitudes(
            tokens=_sizes(tokens, groups),
            layer_norm=_sizes(normalize(tokens, own, one, zero, norm.eps), groups),
            instance_norm=_sizes(normalize(tokens, Moments(channel_mean, channel_var), one, zero, norm.eps), groups),
            dtn=_sizes(mixed[0], groups),
        )


def starting_dtn(norm: nn.LayerNorm, num_groups: int) -> DTN:
    """The DTN that would take a LayerNorm's place: of its width and ``eps``, untrained."""
    return DTN(norm.normalized_shape[0], num_groups, eps=norm.eps)


def _sizes(tokens: Tensor, num_groups: int) -> NDArray[np.float32]:
    """``(H, W, C)`` to ``(G, H, W)``."""
    sizes = split_groups(tokens, num_groups).square().mean(dim=-1).sqrt()
    out: NDArray[np.float32] = sizes.permute(2, 0, 1).float().cpu().numpy()
    return out


def spread(sizes: NDArray[np.float32]) -> float:
    """How unequal tokens are: the standard deviation of their sizes over the mean.

    Args:
        sizes: Of any shape, positive.

    Example:
        >>> spread(np.array([1.0, 1.0, 3.0, 3.0], dtype=np.float32))
        0.5
    """
    return float(sizes.std() / sizes.mean())
