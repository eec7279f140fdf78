"""SwitchNorm and PowerNorm written down from their papers, token by token of a flat batch, without autograd's help."""

from __future__ import annotations

import torch
from torch import Tensor


def switch_norm(x: Tensor, running: tuple[Tensor, Tensor] | None, shares: tuple[Tensor, Tensor], eps: float) -> Tensor:
    """``(B, N, C)``; ``shares`` are the softmaxes for mean and variance in the order IN, LN, BN."""
    out = torch.empty_like(x)
    batch, tokens, channels = x.shape
    for b in range(batch):
        for t in range(tokens):
            for c in range(channels):
                mixed = []
                of_batch = x[:, :, c].mean(), x[:, :, c].var(correction=0)
                if running is not None:
                    of_batch = running[0][c], running[1][c]
                means = (x[b, :, c].mean(), x[b, t].mean(), of_batch[0])
                variances = (x[b, :, c].var(correction=0), x[b, t].var(correction=0), of_batch[1])
                for share, values in zip(shares, (means, variances), strict=True):
                    mixed.append(sum(s * v for s, v in zip(share, values, strict=True)))
                out[b, t, c] = (x[b, t, c] - mixed[0]) / (mixed[1] + eps).sqrt()
    return out


class PowerReference:
    """The running quantities of PowerNorm on ``(M, C)`` rows, one `step` per batch."""

    def __init__(self, channels: int, alpha: float, eps: float, warmup_steps: int) -> None:
        self.psi_squared = torch.ones(channels, dtype=torch.float64)
        self.nu = torch.zeros(channels, dtype=torch.float64)
        self.alpha, self.eps, self.warmup_steps, self.steps = alpha, eps, warmup_steps, 0

    def step(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and the gradient of the normalised rows to the normalised rows and the gradient of the rows."""
        self.steps += 1
        is_warming = self.steps <= self.warmup_steps
        seen = (x**2).sum(0) / len(x)
        root = ((seen if is_warming else self.psi_squared) + self.eps).sqrt()
        if is_warming:
            self.psi_squared = seen if self.steps == 1 else self.psi_squared + (seen - self.psi_squared) / self.steps
        else:
            self.psi_squared = self.alpha * self.psi_squared + (1 - self.alpha) * seen
        x_hat = x / root
        lam = (gradient * x_hat).sum(0) / len(x)
        gamma = (x_hat**2).sum(0) / len(x)
        out = (gradient - (lam if is_warming else self.nu) * x_hat) / root
        self.nu = self.nu * (1 - (1 - self.alpha) * gamma) + (1 - self.alpha) * lam
        return x_hat, out
