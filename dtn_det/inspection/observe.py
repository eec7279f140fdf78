"""One forward pass, watched: what goes into the norms and attentions of each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dtn_det.inspection.blocks import Block
from dtn_det.inspection.pieces import AttentionPiece

NormReader = Callable[[Block, str, Tensor], None]
"""Takes a block, the name of a norm and its input on the grid, ``(H, W, C)``."""
AttentionReader = Callable[[Block, Iterator[AttentionPiece], tuple[int, int]], None]
"""Takes a block, the pieces of its attention and the grid ``(H, W)``."""


def observe(
    blocks: Sequence[Block],
    run: Callable[[], object],
    input_size: tuple[int, int],
    on_norm: NormReader,
    on_attention: AttentionReader,
) -> None:
    """Run a network once and hand what its blocks meet to the readers.

    The readers are called during the pass, so that no tensor is kept for longer than they need it. However the pass
    ends, the network has no hook of ours afterwards.

    Args:
        blocks: Those to watch.
        run: Runs the network on one image.
        input_size: ``(H, W)`` of the network's input in pixels.
        on_norm: Called for each norm.
        on_attention: Called for each attention.
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
