"""DTN from its definition, with the full N x N positional matrix, and in the plain form: what tests compare with."""

import torch
from torch import Tensor

from dtn_det.layers.plain import DTNOptions, DTNParameters, dynamic_token_norm


def plain_dtn(layer, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """``(B, H, W, C)`` through the plain form with the parameters of a DTN layer."""
    gates = layer.mean_norm_weight, layer.var_norm_weight
    parameters = DTNParameters(layer.pos_proj(), *gates, layer.weight, layer.bias)
    return dynamic_token_norm(x, parameters, DTNOptions(layer.eps, layer.head_rms, layer.unbiased), mask)


def dense_matrix(coefficients: Tensor, height: int, width: int, valid: Tensor | None = None) -> Tensor:
    """``(B or 1, G, N, N)`` softmax over the source tokens; ``valid``: ``(B, N)``."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([x.flatten(), y.flatten()], dim=1).to(coefficients)  # (N, 2)
    d = position[:, None] - position[None]  # (N, N, 2), output minus source
    features = torch.cat([d, d.square().sum(-1, keepdim=True)], dim=-1)  # (N, N, 3)
    logits = torch.einsum("gk,tsk->gts", coefficients, features)[None]
    if valid is not None:
        logits = logits.masked_fill(~valid[:, None, None, :], -torch.inf)
    return logits.softmax(-1)


def dense_dtn(layer, x: Tensor, height: int, width: int, valid: Tensor | None = None) -> Tensor:
    """``(B, N, C) -> (B, N, C)`` with the parameters of a DTN layer, in the dtype of ``x``."""
    batch, tokens, channels = x.shape
    groups = layer.num_groups
    if layer.head_rms:
        g = x.reshape(batch, tokens, groups, -1)
        x = (g / (g.square().mean(-1, keepdim=True) + layer.eps).sqrt()).reshape(x.shape)
    mean_ln = x.mean(-1, keepdim=True)
    var_ln = x.var(-1, keepdim=True, unbiased=layer.unbiased)
    matrix = dense_matrix(layer.pos_proj.weight, height, width, valid)
    matrix = matrix.expand(batch, -1, -1, -1)
    grouped = x.reshape(batch, tokens, groups, -1)
    # Deviations, not E[x^2] - E[x]^2: the reference must not lose accuracy itself.
    mean = torch.einsum("bgts,bsgd->btgd", matrix, grouped)
    deviation = grouped[:, None] - mean[:, :, None]  # (B, T, S, G, D)
    var = torch.einsum("bgts,btsgd->btgd", matrix, deviation.square())
    mean, var = mean.reshape(x.shape), var.reshape(x.shape)

    def share(gate: Tensor) -> Tensor:
        return gate.sigmoid().repeat_interleave(channels // groups)

    mixed_mean = mean_ln
    if not layer.only_var:
        lam = share(layer.mean_norm_weight)
        mixed_mean = lam * mean_ln + (1 - lam) * mean
    lam = share(layer.var_norm_weight)
    mixed_var = lam * var_ln + (1 - lam) * var
    if valid is not None:
        mixed_mean = torch.where(valid[..., None], mixed_mean, mean_ln)
        mixed_var = torch.where(valid[..., None], mixed_var, var_ln)
    return layer.weight * (x - mixed_mean) / (mixed_var + layer.eps).sqrt() + layer.bias


def randomize(layer, seed: int = 0, kernel_scale: float = 1.0) -> None:
    """Random parameters: kernels of any sign (wide, flat and growing ones too), gates of both kinds."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(kernel_scale * value if name.startswith("pos_proj") else 1.0 * value)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()
