"""The transformer blocks of a network: where they lie, their norms, and how to read their attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.inspection.attention import AttentionPiece, reduced_pieces, vit_pieces, window_pieces
from dtn_det.layers import DTN, TokenLayerNorm, TokenNorm

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and keyword arguments of a module's forward."""


@dataclass(frozen=True)
class Block:
    """A transformer block.

    Attributes:
        name: Path of its module in the network.
        stage: Number of its stage, from 1.
        index: Number of the block in its stage, from 1.
        stride: Pixels of the network's input between neighbouring tokens.
        attention: The module from whose input the attention is recomputed.
        kind: ``window``, ``spatial reduction`` or ``global``.
        pieces: A function that takes the arguments of ``attention`` and the grid, and yields one image's attention in
            pieces.
        key_ratio: Height of the token grid divided by the height of the key grid; the same for the widths.
        num_prefix: Number of class, distillation and register tokens before the tokens of the grid.
        takes_grid: Whether the block is called with the grid of its tokens; otherwise the grid follows from the size of
            the input.
    """

    name: str
    stage: int
    index: int
    stride: int
    module: Any
    attention: Any
    kind: str
    pieces: Callable[[Call, tuple[int, int]], Iterator[AttentionPiece]]
    key_ratio: int = 1
    num_prefix: int = 0
    class_token: bool = False
    takes_grid: bool = True

    @property
    def norms(self) -> Mapping[str, nn.LayerNorm]:
        """The norms before attention and before the feed-forward layers, by their names in the block."""
        return {"norm1": self.module.norm1, "norm2": self.module.norm2}

    @property
    def num_heads(self) -> int:
        """Number of heads of the attention."""
        return int(self.attention.num_heads)


def find_blocks(network: nn.Module, source: str) -> tuple[Block, ...]:
    """Find the blocks of the Swin, PVT or ViT in a network, in the order in which they run.

    Args:
        network: A detector, a classifier or a backbone.

    Raises:
        InputError: There is no such backbone, or its norms are neither LayerNorm nor DTN.
    """
    for name, module in network.named_modules():
        for ancestor in type(module).__mro__:
            blocks_of = _FAMILIES.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
            if blocks_of is not None:
                return tuple(_checked(block, source) for block in blocks_of(module, f"{name}." if name else ""))
    backbone = getattr(network, "backbone", network)
    raise InputError(
        f"expected a backbone with Swin's, PVT's or ViT's blocks in {source}, got {type(backbone).__name__}: name a "
        "config such as configs/dtn_swin/retinanet_dtn-swin-t-p4-w7_fpn_1x_coco.py"
    )


def _checked(block: Block, source: str) -> Block:
    for name, norm in block.norms.items():
        is_other = isinstance(norm, TokenNorm) and not isinstance(norm, DTN | TokenLayerNorm)
        if is_other or not isinstance(norm, nn.LayerNorm):
            raise InputError(
                f"expected LayerNorm or DTN as {block.name}.{name} of {source}, got {type(norm).__name__}: name a "
                "model with one of these"
            )
    return block


def _swin(backbone: Any, prefix: str) -> Iterator[Block]:
    stride = _stride(backbone.patch_embed)
    for stage, sequence in enumerate(backbone.stages):
        for index, module in enumerate(sequence.blocks):
            attention = module.attn
            yield Block(
                name=f"{prefix}stages.{stage}.blocks.{index}",
                stage=stage + 1,
                index=index + 1,
                stride=stride,
                module=module,
                attention=attention.w_msa,
                kind="window",
                pieces=partial(_read_windows, attention),
            )
        if sequence.downsample is not None:
            stride *= _stride(sequence.downsample)


def _read_windows(attention: Any, call: Call, grid: tuple[int, int]) -> Iterator[AttentionPiece]:
    args, kwargs = call
    mask: Tensor | None = kwargs.get("mask", args[1] if len(args) > 1 else None)
    return window_pieces(attention, args[0], mask, grid)


def _pvt(backbone: Any, prefix: str) -> Iterator[Block]:
    stride = 1
    for stage, (patch_embed, layers, _) in enumerate(backbone.layers):
        stride *= _stride(patch_embed)
        # Select blocks by their attention, because in PVT a position embedding precedes them.
        places = [place for place, module in enumerate(layers) if hasattr(module, "attn")]
        for index, place in enumerate(places):
            module = layers[place]
            yield Block(
                name=f"{prefix}layers.{stage}.1.{place}",
                stage=stage + 1,
                index=index + 1,
                stride=stride,
                module=module,
                attention=module.attn,
                kind="spatial reduction",
                pieces=partial(_read_reduced, module.attn),
                key_ratio=module.attn.sr_ratio,
            )


def _read_reduced(attention: Any, call: Call, grid: tuple[int, int]) -> Iterator[AttentionPiece]:
    return reduced_pieces(attention, call[0][0], grid)


def _vit(layers: str, num_prefix_tokens: str, backbone: Any, prefix: str) -> Iterator[Block]:
    """Yield the blocks of a ViT; ``layers`` and ``num_prefix_tokens`` are names of attributes of the backbone."""
    class_token = backbone.cls_token is not None
    num_prefix = getattr(backbone, num_prefix_tokens)
    for index, module in enumerate(getattr(backbone, layers)):
        attention: Any = getattr(module, "attn", None)
        if not isinstance(getattr(attention, "qkv", None), nn.Linear):
            raise InputError(
                f"expected blocks of ViT with one projection for queries, keys and values, got {type(module).__name__} "
                f"with {type(attention).__name__}: name a plain ViT"
            )
        yield Block(
            name=f"{prefix}{layers}.{index}",
            stage=1,
            index=index + 1,
            stride=_stride(backbone.patch_embed),
            module=module,
            attention=attention,
            kind="global",
            pieces=partial(_read_vit, attention, num_prefix, class_token),
            num_prefix=num_prefix,
            class_token=class_token,
            takes_grid=False,
        )


def _read_vit(
    attention: Any, num_prefix: int, class_token: bool, call: Call, grid: tuple[int, int]
) -> Iterator[AttentionPiece]:
    return vit_pieces(attention, call[0][0], grid, num_prefix, class_token)


# The classes are given by name, because none of these packages needs to be installed.
_FAMILIES: Mapping[str, Callable[[Any, str], Iterator[Block]]] = {
    "mmdet.models.backbones.swin.SwinTransformer": _swin,
    "mmdet.models.backbones.pvt.PyramidVisionTransformer": _pvt,
    "timm.models.vision_transformer.VisionTransformer": partial(_vit, "blocks", "num_prefix_tokens"),
    "mmpretrain.models.backbones.vision_transformer.VisionTransformer": partial(_vit, "layers", "num_extra_tokens"),
}


def _stride(part: Any) -> int:
    """Return the stride of a patch embedding in pixels, or of a patch merging in tokens."""
    for name in ("projection", "proj", "sampler"):
        if hasattr(part, name):
            stride = getattr(part, name).stride
            return int(stride[0] if isinstance(stride, tuple) else stride)
    # `patch_size` is one number in Shifted Patch Tokenization and a pair in timm's modules.
    patch = part.patch_size
    return int(patch[0] if isinstance(patch, tuple) else patch)
