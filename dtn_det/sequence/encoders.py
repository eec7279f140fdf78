"""Encoders of token sequences from transformers, with the settings of the Long-Range Arena.

The Reformer of transformers gets repeatable randomness: seeded dropout, and fixed hashing in evaluation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.sequence.listops import VOCABULARY

transformers = require("transformers", "cls")

from transformers.models.reformer.modeling_reformer import (  # noqa: E402
    LSHSelfAttention,
    ReformerLayer,
    ReformerModel,
)

CLASS_TOKEN = len(VOCABULARY)
PADDING = 0

# Constants of the linear congruential generator of 62-bit seeds: Knuth's multiplier, and an odd increment.
_MULTIPLIER, _INCREMENT, _MODULUS = 6364136223846793005, 1442695040888963407, 1 << 62


def check_integers(least: int = 1, **values: int) -> None:
    """Check that settings are integers of ``least`` or more.

    Raises:
        InputError: A setting is not an integer, or below ``least``.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(
                f"expected {name} to be an integer of at least {least}, got {value!r}: change it in the config"
            )


def check_rate(**values: float) -> None:
    """Check that dropout rates are at least 0 and below 1.

    Raises:
        InputError: A rate is out of this range.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(
                f"expected {name} from 0 to below 1, got {value!r}: change it in the config, 0 drops nothing"
            )


@dataclass(frozen=True)
class Encoder:
    """An encoder, and the sizes of its input and output.

    Attributes:
        model: A model of transformers, to be called with ``input_ids``, ``attention_mask`` and ``position_ids``, each
            ``(B, length)``.
        length: Number of tokens of each input, with class token and padding. It is the same for all inputs, so that
            outputs do not depend on the padding of a batch.
        width: Number of channels of the output for each token.
    """

    model: nn.Module
    length: int
    width: int


@dataclass(frozen=True)
class Sizes:
    """The sizes that all encoders have. The defaults are the Arena's.

    Attributes:
        max_tokens: Largest number of tokens in a sequence, without the class token.
        embed_dims: Number of channels of a token.
        mlp_dims: Number of channels between the two linear layers of a block's feed-forward network.
        drop_rate: Rate of dropout in the blocks and on attention weights, at least 0 and below 1.

    Raises:
        InputError: A number is out of range, or the number of heads does not divide the number of channels.
    """

    max_tokens: int = 1999
    embed_dims: int = 512
    num_layers: int = 6
    num_heads: int = 8
    mlp_dims: int = 2048
    drop_rate: float = 0.1

    def __post_init__(self) -> None:
        check_integers(
            max_tokens=self.max_tokens,
            embed_dims=self.embed_dims,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_dims=self.mlp_dims,
        )
        check_rate(drop_rate=self.drop_rate)
        if self.embed_dims % self.num_heads:
            raise InputError(
                f"expected num_heads that divide embed_dims, got {self.num_heads} and {self.embed_dims}: change one"
            )

    def padded_to(self, multiple: int) -> int:
        """Return the length of the longest sequence with class token, rounded up to a multiple of ``multiple``."""
        return math.ceil((self.max_tokens + 1) / multiple) * multiple

    def common(self, length: int) -> dict[str, Any]:
        """Return the arguments that the configs of all encoders have in common."""
        return {
            "vocab_size": CLASS_TOKEN + 1,
            "hidden_size": self.embed_dims,
            "num_attention_heads": self.num_heads,
            "hidden_dropout_prob": self.drop_rate,
            "hidden_act": "gelu",
            "max_position_embeddings": length,
            "pad_token_id": PADDING,
        }

    def bert(self, length: int) -> dict[str, Any]:
        """Return the arguments of the configs of encoders derived from BERT."""
        return {
            **self.common(length),
            "num_hidden_layers": self.num_layers,
            "intermediate_size": self.mlp_dims,
            "attention_probs_dropout_prob": self.drop_rate,
            "type_vocab_size": 1,
        }


def build_encoder(name: str, sizes: Sizes, **options: Any) -> Encoder:
    """Build an encoder with newly initialised weights.

    As in the Arena, word embeddings are initialised with a standard deviation of 1, and position embeddings are fixed
    sines and cosines.

    Args:
        name: ``'transformer'`` is the encoder of XLM-RoBERTa-XL, with norms before the branches of its blocks, as in
            the Arena. ``'bigbird'`` has block-sparse attention, with norms behind the residual sums, as in
            transformers. ``'reformer'`` has hashed attention, with norms before the branches.
        **options: For BigBird ``block_size`` (default 64) and ``num_random_blocks`` (3). For Reformer ``chunk_length``
            (200), ``num_buckets`` (10; must be even), ``num_hashes`` (1) and ``hash_seed`` (0), the seed of the hashing
            in evaluation.

    Raises:
        InputError: The name is unknown, the encoder has no such option, or numbers do not match.
    """
    builders: dict[str, Callable[..., Encoder]] = {
        "transformer": _transformer,
        "bigbird": _bigbird,
        "reformer": _reformer,
    }
    if name not in builders:
        raise InputError(f"expected an encoder out of {', '.join(builders)}, got {name!r}")
    try:
        encoder = builders[name](sizes, **options)
    except TypeError as error:
        raise InputError(f"expected options that {name} has, got {', '.join(options)} ({error})") from None
    _start_embeddings(encoder)
    return encoder


def _transformer(sizes: Sizes) -> Encoder:
    length = sizes.max_tokens + 1
    config = transformers.XLMRobertaXLConfig(**sizes.bert(length))
    return Encoder(transformers.XLMRobertaXLModel(config, add_pooling_layer=False), length, sizes.embed_dims)


def _bigbird(sizes: Sizes, *, block_size: int = 64, num_random_blocks: int = 3) -> Encoder:
    check_integers(block_size=block_size, num_random_blocks=num_random_blocks)
    length = sizes.padded_to(block_size)
    # For shorter sequences transformers computes full attention instead.
    least = (5 + 2 * num_random_blocks) * block_size + 1
    if length < least:
        raise InputError(
            f"expected sequences of at least {least} tokens for blocks of {block_size} and {num_random_blocks} random "
            f"ones, got {length}: lower block_size or num_random_blocks"
        )
    config = transformers.BigBirdConfig(
        **sizes.bert(length), block_size=block_size, num_random_blocks=num_random_blocks, attention_type="block_sparse"
    )
    return Encoder(transformers.BigBirdModel(config, add_pooling_layer=False), length, sizes.embed_dims)


def _reformer(
    sizes: Sizes, *, chunk_length: int = 200, num_buckets: int = 10, num_hashes: int = 1, hash_seed: int = 0
) -> Encoder:
    check_integers(chunk_length=chunk_length, num_buckets=num_buckets, num_hashes=num_hashes)
    check_integers(0, hash_seed=hash_seed)
    if num_buckets % 2:
        raise InputError(
            f"expected num_buckets to be even, a rotation has two directions, got {num_buckets}: take {num_buckets + 1}"
        )
    length = sizes.padded_to(chunk_length)
    config = transformers.ReformerConfig(
        **sizes.common(length),
        attn_layers=["lsh"] * sizes.num_layers,
        attention_head_size=sizes.embed_dims // sizes.num_heads,
        feed_forward_size=sizes.mlp_dims,
        lsh_attention_probs_dropout_prob=sizes.drop_rate,
        lsh_attn_chunk_length=chunk_length,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=0,
        num_buckets=num_buckets,
        num_hashes=num_hashes,
        axial_pos_embds=False,
        is_decoder=False,
    )
    # Reformer's output is the concatenation of its two reversible streams along the channels.
    return Encoder(SeededReformer(config, hash_seed), length, 2 * sizes.embed_dims)


class SeededReformerLayer(ReformerLayer):  # type: ignore[misc]
    """A layer whose dropout and hashing depend on the seed of the run.

    The reversible backward pass repeats the forward pass with the same seed. In transformers this seed comes from the
    operating system, so training is not repeatable. Here each layer has its own sequence of seeds, and checkpoints
    store the layer's position in its sequence.
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


class SeededReformer(ReformerModel):  # type: ignore[misc]
    """Reformer whose hashing uses the same rotations in each call in evaluation, and random ones in training.

    So in evaluation, the output for a sequence does not depend on other sequences of the batch, and the state of
    PyTorch's generators does not change.

    Args:
        evaluation_seed: Seed of the rotations in evaluation.
    """

    def __init__(self, config: Any, evaluation_seed: int) -> None:
        super().__init__(config)
        self.evaluation_seed = evaluation_seed
        for layer in self.encoder.layers:
            layer.__class__ = SeededReformerLayer
            layer.register_buffer("dropout_seed", torch.randint(_MODULUS, ()))

    # `wraps` preserves the names of the arguments, through which the conversion of norms finds the mask.
    @functools.wraps(ReformerModel.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
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


def _start_embeddings(encoder: Encoder) -> None:
    embeddings: Any = encoder.model.embeddings
    positions = embeddings.position_embeddings
    table: nn.Embedding = positions if isinstance(positions, nn.Embedding) else positions.embedding
    with torch.no_grad():
        embeddings.word_embeddings.weight.normal_()
        table.weight.copy_(sinusoidal_positions(*table.weight.shape))
    table.weight.requires_grad_(False)


def sinusoidal_positions(length: int, channels: int) -> Tensor:
    """Return alternating sines and cosines of positions (Vaswani et al., arXiv:1706.03762), ``(length, channels)``."""
    position = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float64) * (-math.log(10000.0) / channels))
    angles = position * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :channels].float()
