"""Run one forward pass of a model, in which hooks read the inputs of each block's norms and attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dtn_det.inspection.attention import AttentionLook, AttentionPiece, look_at_attention
from dtn_det.inspection.blocks import Block, find_blocks
from dtn_det.inspection.norms import Gates, Kernels, Magnitudes, read_gates, read_kernels, token_magnitudes
from dtn_det.inspection.subject import Subject
from dtn_det.layers import DTN


@dataclass(frozen=True)
class NormLook:
    """The effect of one norm of a block on one image.

    Attributes:
        name: Name of the norm in the block, such as ``norm1``.
        kind: ``DTN`` or ``LN``.
        magnitudes: Sizes of the tokens before and after three norms.
        gates: The learned gates; None for a LayerNorm.
        kernels: The learned positional kernels; None for a LayerNorm.
    """

    name: str
    kind: str
    magnitudes: Magnitudes
    gates: Gates | None
    kernels: Kernels | None


@dataclass(frozen=True)
class BlockLook:
    """The norms and the attention of one block on one image.

    Attributes:
        name: Path of the block's module in the network.
        title: Name of the block in figures.
        stage: Number of its stage, from 1.
        index: Number of the block in its stage, from 1.
        stride: Pixels of the network's input between neighbouring tokens.
        key_ratio: Side of the token grid divided by the side of the key grid.
        kind: Kind of its attention: ``window``, ``spatial reduction`` or ``global``.
        inside: ``(H, W)``, True for tokens of the image and False for tokens of the padding around it.
        norms: The norms by their names in the block.
        attention: The attention of all heads.
    """

    name: str
    title: str
    stage: int
    index: int
    stride: int
    key_ratio: int
    kind: str
    inside: NDArray[np.bool_]
    norms: Mapping[str, NormLook]
    attention: AttentionLook


@dataclass(frozen=True)
class Looks:
    """The norms and attentions of all blocks of a model on one image.

    Attributes:
        blocks: The transformer blocks in the order in which they run.
    """

    subject: Subject
    blocks: tuple[BlockLook, ...]

    @property
    def norms(self) -> Iterator[tuple[BlockLook, NormLook]]:
        """All norms, each with its block."""
        return ((block, norm) for block in self.blocks for norm in block.norms.values())

    @property
    def has_dtn(self) -> bool:
        """True if any norm is DTN, so that there are gates and kernels."""
        return any(norm.kind == "DTN" for _, norm in self.norms)

    @property
    def has_class_token(self) -> bool:
        """True if there is a class token whose attention can be drawn."""
        return any(block.attention.class_map is not None for block in self.blocks)


def look(subject: Subject) -> Looks:
    """Run the model once, and read norms and attention of all its blocks.

    Raises:
        InputError: The model has no backbone with Swin's, PVT's or ViT's blocks.
    """
    blocks = find_blocks(subject.network, subject.model)
    norms: dict[str, dict[str, NormLook]] = {block.name: {} for block in blocks}
    attention: dict[str, AttentionLook] = {}
    inside: dict[str, NDArray[np.bool_]] = {}

    def on_norm(block: Block, name: str, tokens: Tensor) -> None:
        norm = block.norms[name]
        dtn = norm if isinstance(norm, DTN) else None
        norms[block.name][name] = NormLook(
            name=name,
            kind="LN" if dtn is None else "DTN",
            magnitudes=token_magnitudes(tokens, norm, block.num_heads),
            gates=None if dtn is None else read_gates(dtn),
            kernels=None if dtn is None else read_kernels(dtn, (tokens.shape[0], tokens.shape[1])),
        )

    def on_attention(block: Block, pieces: Iterator[AttentionPiece], grid: tuple[int, int]) -> None:
        key_grid = (grid[0] // block.key_ratio, grid[1] // block.key_ratio)
        inside[block.name] = tokens_inside(grid, block.stride, subject.picture.shape[:2])
        attention[block.name] = look_at_attention(pieces, key_grid, torch.from_numpy(inside[block.name]))

    observe(blocks, subject.run, subject.input_size, on_norm, on_attention)
    several = len({block.stage for block in blocks}) > 1
    return Looks(
        subject,
        tuple(
            BlockLook(
                block.name,
                f"stage {block.stage}, block {block.index}" if several else f"block {block.index}",
                block.stage,
                block.index,
                block.stride,
                block.key_ratio,
                block.kind,
                inside[block.name],
                {name: norms[block.name][name] for name in block.norms},
                attention[block.name],
            )
            for block in blocks
        ),
    )


def tokens_inside(grid: tuple[int, int], stride: int, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Find the tokens whose centre lies within the image, and not in the padding around it.

    Args:
        grid: ``(H, W)``.
        stride: Pixels between neighbouring tokens.
        size: Height and width of the image in pixels.

    Returns:
        ``(H, W)`` booleans.

    Example:
        >>> tokens_inside((1, 3), 4, (4, 9))
        array([[ True,  True, False]])
    """
    rows, columns = ((np.arange(length) + 0.5) * stride < side for length, side in zip(grid, size, strict=True))
    return rows[:, None] & columns[None, :]


NormReader = Callable[[Block, str, Tensor], None]
"""A function of a block, the name of one of its norms, and the input of this norm, ``(H, W, C)``."""
AttentionReader = Callable[[Block, Iterator[AttentionPiece], tuple[int, int]], None]
"""A function of a block, the pieces of its attention, and the grid ``(H, W)``."""


def observe(
    blocks: Sequence[Block],
    run: Callable[[], object],
    input_size: tuple[int, int],
    on_norm: NormReader,
    on_attention: AttentionReader,
) -> None:
    """Run a network once and pass the inputs of its norms and attentions to the readers.

    The readers are called during the pass, so that tensors are freed as soon as possible. Afterwards all hooks are
    removed, even if the pass fails.

    Args:
        input_size: ``(H, W)`` of the network's input in pixels.
    """
    grids: dict[str, tuple[int, int]] = {}
    handles: list[RemovableHandle] = []

    def watch(module: nn.Module, read: Callable[[tuple[Any, ...], Mapping[str, Any]], None]) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(args, kwargs)

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def watch_block(block: Block) -> None:
        def enter(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if block.takes_grid:
                height, width = kwargs["hw_shape"] if "hw_shape" in kwargs else args[1]
            else:
                height, width = (side // block.stride for side in input_size)
            grids[block.name] = (int(height), int(width))

        def attend(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            grid = grids[block.name]
            on_attention(block, block.pieces((args, kwargs), grid), grid)

        watch(block.module, enter)
        watch(block.attention, attend)
        for name, norm in block.norms.items():
            watch_norm(block, name, norm)

    def watch_norm(block: Block, name: str, norm: nn.Module) -> None:
        def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            tokens: Tensor = args[0][0, block.num_prefix :]
            on_norm(block, name, tokens.reshape(*grids[block.name], -1))

        watch(norm, read)

    try:
        for block in blocks:
            watch_block(block)
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
