"""The Reformer of transformers with repeatable randomness: seeded dropout, and fixed hashing in evaluation."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.reformer.modeling_reformer import LSHSelfAttention, ReformerLayer, ReformerModel

# The linear congruential generator of the seeds, of 62 bits: Knuth's multiplier, and an odd increment.
_MULTIPLIER, _INCREMENT, _MODULUS = 6364136223846793005, 1442695040888963407, 1 << 62


class SeededReformerLayer(ReformerLayer):
    """A layer whose dropout and hashing depend on the seed of the run.

    The reversible backward pass repeats the forward pass with the same seed. In transformers that seed comes from the
    operating system, so that no training can be repeated. Here each layer has its own sequence of seeds, and
    checkpoints store where it has come to.
    """

    dropout_seed: Tensor

    def _init_attention_seed(self) -> None:
        self.attention_seed = self._next_seed()
        torch.manual_seed(self.attention_seed)

    def _init_feed_forward_seed(self) -> None:
        self.feed_forward_seed = self._next_seed()
        torch.manual_seed(self.feed_forward_seed)

    def _next_seed(self) -> int:
        seed = (int(self.dropout_seed) * _MULTIPLIER + _INCREMENT) % _MODULUS
        self.dropout_seed.fill_(seed)
        return seed


class SeededReformer(ReformerModel):
    """Reformer that hashes with the same rotations in every call in evaluation, and with random ones in training.

    In evaluation a sequence therefore gets the same output whatever else is in its batch, and the state of PyTorch's
    generators does not change.

    Args:
        config: The config of ``ReformerModel``.
        evaluation_seed: Seed of the rotations in evaluation.
    """

    def __init__(self, config: Any, evaluation_seed: int) -> None:
        super().__init__(config)  # type: ignore[no-untyped-call]
        self.evaluation_seed = evaluation_seed
        for layer in self.encoder.layers:
            layer.__class__ = SeededReformerLayer
            layer.register_buffer("dropout_seed", torch.randint(_MODULUS, ()))

    # `wraps` keeps the names of the arguments, by which the conversion of norms finds the mask.
    @functools.wraps(ReformerModel.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Run the model, with the arguments and results of ``ReformerModel``."""
        with _generators_kept(self, None if self.training else self.evaluation_seed):
            return super().forward(*args, **kwargs)


@contextmanager
def _generators_kept(model: nn.Module, hash_seed: int | None) -> Iterator[None]:
    for module in model.modules():
        if isinstance(module, LSHSelfAttention):
            module.hash_seed = hash_seed
    if hash_seed is None:
        yield
        return
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield


def build_reformer(config: Any, hash_seed: int) -> nn.Module:
    """Build a Reformer with fresh weights.

    Args:
        config: A ``ReformerConfig``.
        hash_seed: Seed of the rotations in evaluation.
    """
    return SeededReformer(config, hash_seed)
