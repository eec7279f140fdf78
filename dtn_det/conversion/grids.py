"""Hooks through which a converted norm receives the grid of its tokens.

Some hooks record the grid where the model shows it. Other hooks pass the grid to the norms as `hw_shape`. The state of
all hooks is in plain objects, which are copied and pickled together with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.conversion.grid_memory import BlockGrid, Grid, GridMemory, PatchLayout
from dtn_det.conversion.hosts.traits import ExtraTokens, arguments
from dtn_det.errors import InputError

# Names of the arguments in which blocks receive their grid: timm's PVTv2 (feat_size) and Twins (size), MMDetection and
# mmpretrain (hw_shape), Hugging Face (input_dimensions; height and width), XCiT (H and W).
_PAIRS = ("hw_shape", "feat_size", "size", "input_dimensions", "patch_resolution")
_SIDES = (("height", "width"), ("H", "W"))
_MASKS = ("attention_mask",)


@dataclass
class RecordOutput:
    """A forward hook on a module that may make tokens.

    It records the grid of an output ``(B, C, H, W)`` or ``(tokens, (H, W))``.

    Attributes:
        host: Path of the host to which the tokens belong; see :mod:`dtn_det.conversion.grid_memory`.
        widths: Numbers of channels whose norms are converted; outputs with other numbers of channels are ignored.
    """

    memory: GridMemory
    host: str
    widths: frozenset[int]

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Record the grid of an output if the output shows one."""
        if isinstance(output, Tensor) and output.dim() == 4:
            batch, channels, height, width = map(_side, output.shape)
            if channels in self.widths:
                self.memory.record(self.host, channels, (height, width), batch)
        elif isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor):
            tokens, grid = output
            if _is_pair(grid) and tokens.dim() == 3 and _side(tokens.shape[-1]) in self.widths:
                batch, _, channels = map(_side, tokens.shape)
                self.memory.record(self.host, channels, (_side(grid[0]), _side(grid[1])), batch)


@dataclass
class RecordInput:
    """A forward pre-hook on a block. It records the grid from an argument, or from the shape of an input that is a map.

    Attributes:
        target: Object that stores the grid.
        width: Channels `C` of the block's tokens.
        pair: Name and position of the argument that holds `(H, W)`.
        sides: Names and positions of the two arguments that hold height and width.
        channels_last: False if the block takes maps `(B, C, H, W)`; None if its modules do not show the layout.
    """

    target: BlockGrid
    width: int
    pair: tuple[str, int] | None = None
    sides: tuple[tuple[str, int], ...] = ()
    channels_last: bool | None = None

    @classmethod
    def of(cls, block: nn.Module, target: BlockGrid, width: int) -> RecordInput:
        """Make the hook for a block, from the arguments of its `forward` and from its convolutions."""
        names = arguments(block)
        pair = next(((name, names.index(name)) for name in _PAIRS if name in names), None)
        told = next((sides for sides in _SIDES if set(sides) <= set(names)), ())
        sides = tuple((name, names.index(name)) for name in told)
        takes_maps = any(isinstance(child, nn.Conv2d) and child.in_channels == width for child in block.modules())
        return cls(target, width, pair, sides, False if takes_maps else None)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Record the grid of this call, or None if the call does not show one."""
        grid = self._told(args, kwargs)
        if grid is None:
            self._see(args, kwargs)
        else:
            self.target.tell(grid)

    def _told(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Grid | None:
        if self.pair is not None:
            value = _argument(*self.pair, args, kwargs)
            if _is_pair(value):
                return _side(value[0]), _side(value[1])
        if self.sides:
            height, width = (_argument(*side, args, kwargs) for side in self.sides)
            if _is_pair((height, width)):
                return _side(height), _side(width)
        return None

    def _see(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor) or x.dim() != 4:
            self.target.tell(None)
            return
        _, first, second, third = map(_side, x.shape)
        if first == third == self.width != second and self.channels_last is None:
            self.target.tell(None, ((first, second), (second, third)))
        elif third == self.width and not (first == self.width and self.channels_last is False):
            self.target.tell((first, second))
        else:
            self.target.tell((second, third) if first == self.width else None)


@dataclass
class RecordMask:
    """A forward pre-hook on a model of sequences. It records the mask ``(B, L)``, nonzero for valid tokens."""

    memory: GridMemory
    argument: tuple[str, int]

    @classmethod
    def of(cls, model: nn.Module, memory: GridMemory) -> RecordMask | None:
        """Make the hook for a model; None if its `forward` takes no mask."""
        names = arguments(model)
        name = next((name for name in _MASKS if name in names), None)
        return None if name is None else cls(memory, (name, names.index(name)))

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Record the mask of this call, or None if the call has no mask."""
        mask = _argument(*self.argument, args, kwargs)
        if isinstance(mask, Tensor) and mask.dim() != 2:
            raise InputError(
                f"expected {self.argument[0]} of shape (B, L), one number a token, got {tuple(mask.shape)}: converted "
                "norms cannot tell the padded tokens from it"
            )
        self.memory.mask = mask.bool() if isinstance(mask, Tensor) else None


@dataclass
class GiveGrid:
    """A forward pre-hook on a norm of an image model, which adds `hw_shape` to its arguments.

    The norm expects the tokens outside the grid to stand before the grid. This hook moves tokens behind the grid to the
    front, and :class:`RestoreOrder` moves these tokens back.

    Attributes:
        hosts: Paths of the hosts around the norm, the nearest first.
        width: Number of channels of tokens in the norm's block.
        extra: How many tokens of the model lie outside the grid.
        block: Record of the grid that the norm's block receives; None for a norm outside of blocks.
        fixed: Grid from the user, or a function that returns it for a number of tokens; None if hooks must find the
            grid.
    """

    name: str
    memory: GridMemory
    hosts: tuple[str, ...]
    width: int
    extra: ExtraTokens
    block: BlockGrid | None
    fixed: Grid | Callable[[int], Grid] | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add the grid to the arguments of the norm."""
        x = args[0]
        if x.dim() == 4 and self.block is not None:
            self._learn_layout(self.block, x)
        if x.dim() != 3 or len(args) > 1 or kwargs.get("hw_shape") is not None:
            return args, kwargs
        grid, padded = self._grid(x)
        behind = tokens_behind(x, grid, self.extra) if padded or self.extra.suffix else 0
        if behind:
            args = (x.roll(behind, 1),)
        return args, {**kwargs, "hw_shape": grid}

    def _learn_layout(self, block: BlockGrid, x: Tensor) -> None:
        """Record that a block's map is channels-last, if its layout was unclear and this norm gets such a map."""
        unclear = block.unclear
        if unclear is not None and (_side(x.shape[1]), _side(x.shape[2])) == unclear[0]:
            block.tell(unclear[0])

    def _grid(self, x: Tensor) -> tuple[Grid, bool]:
        """Return the grid of the tokens, and whether padding may follow them."""
        num_tokens = _side(x.shape[1])
        layout = self.memory.read_layout(self.hosts, self.name)
        if layout is not None:
            grid, padded = self._of_layout(layout, x), True
        elif self.fixed is not None:
            grid, padded = self._fixed(num_tokens), False
            if num_tokens != grid[0] * grid[1]:
                # When activations are recomputed, the layout of a padded batch is no longer available, so the recorded
                # grid shows whether there is padding.
                seen = self.memory.find(self.hosts, self.width, self.name, num_tokens)
                padded = seen is not None and seen.padded
        else:
            told = self._of_block()
            grid, padded = (told, False) if told else self._of_pass(x, num_tokens)
        surplus = num_tokens - grid[0] * grid[1]
        if padded and surplus >= self.extra.total:
            surplus = self.extra.total
        if surplus not in (0, self.extra.total):
            extra = f" and {self.extra}" if self.extra.total else ""
            raise InputError(
                f"expected the tokens of {self.name!r} to be a grid of {grid[0]} x {grid[1]}{extra}, got "
                f"{num_tokens}: DTN needs all tokens of the grid in their places, so turn off what drops or merges "
                "tokens (patch_drop_rate), or pass grid= to convert_norm"
            )
        if not torch.compiler.is_compiling():
            self.memory.surpluses.add(surplus)
        return grid, padded

    def _fixed(self, num_tokens: int) -> Grid:
        if callable(self.fixed):
            return self.fixed(num_tokens)
        assert self.fixed is not None
        return self.fixed[0], self.fixed[1]

    def _of_layout(self, layout: PatchLayout, x: Tensor) -> Grid:
        """Return the grid that all images of a layout have, and check that a grid from the user is the same."""
        if layout.grid is None:
            raise InputError(
                f"expected images of one grid at {self.name!r}, their patches row by row and padding, if any, behind "
                f"them, got {layout.problem}: batch images of one grid together, or pass one image at a time, cut to "
                "its patches"
            )
        if self.fixed is not None:
            given = self._fixed(_side(x.shape[1]))
            if given != layout.grid:
                raise InputError(
                    f"expected images of the grid {given[0]} x {given[1]} that convert_norm was given, at "
                    f"{self.name!r}, got {layout.grid[0]} x {layout.grid[1]} by {layout.source}: convert the model "
                    "without grid="
                )
        if _side(x.shape[0]) != layout.batch:
            raise InputError(
                f"expected the tokens of {self.name!r} as (B, N, C) with B = {layout.batch}, the number of images by "
                f"{layout.source}, got {tuple(x.shape)}: leave this norm out with layers="
            )
        self.memory.keep_for_backward(self.hosts[0], self.width, layout.grid, padded=True)
        return layout.grid

    def _of_block(self) -> Grid | None:
        if self.block is None:
            return None
        if self.block.unclear is not None:
            first, second = self.block.unclear
            raise InputError(
                f"expected to tell (B, H, W, C) from (B, C, H, W) at {self.name!r}, got a map of which both have C = "
                f"{self.width} and which is a grid of {first[0]} x {first[1]} or of {second[0]} x {second[1]}: pass "
                "grid=(H, W) to convert_norm"
            )
        return self.block.grid

    def _of_pass(self, x: Tensor, num_tokens: int) -> tuple[Grid, bool]:
        seen = self.memory.find(self.hosts, self.width, self.name, num_tokens)
        if seen is None:
            raise InputError(
                f"expected to see the grid of the tokens of {self.name!r} in this forward pass, got "
                f"{tuple(x.shape)} and nothing else: pass images through the whole model, or pass grid=(H, W), or a "
                "function of the number of tokens, to convert_norm"
            )
        batch = _side(x.shape[0])
        if seen.batch not in (batch, -1):
            raise InputError(
                f"expected the tokens of {self.name!r} as (B, N, C) with B = {seen.batch}, the number of images whose "
                f"grid was seen, got {tuple(x.shape)}: DTN needs the tokens of an image in one row, so pass grid= to "
                "convert_norm, or leave this norm out with layers="
            )
        return seen.grid, seen.padded


@dataclass
class RestoreOrder:
    """A forward hook on a norm. It moves tokens back behind the grid after :class:`GiveGrid` moved them to the front.

    Attributes:
        extra: How many tokens of the model lie outside the grid; further tokens behind the grid are padding.
    """

    extra: ExtraTokens

    def __call__(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Tensor) -> Tensor | None:
        """Return the output with the moved tokens at the end again; None if :class:`GiveGrid` moved no tokens."""
        grid = kwargs.get("hw_shape")
        behind = tokens_behind(output, grid, self.extra) if output.dim() == 3 and grid is not None else 0
        return output.roll(-behind, 1) if behind else None


@dataclass
class GiveSequence:
    """A forward pre-hook on a norm of a sequence model. It adds the grid `1 x L` and the mask of valid tokens."""

    name: str
    memory: GridMemory
    takes_grid: bool = True

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add the grid and the mask to the arguments of the norm."""
        x = args[0]
        given: dict[str, Any] = {"mask": self._mask(x)}
        if self.takes_grid:
            given["hw_shape"] = (1, x.shape[1])
        return args, {**given, **kwargs}

    def _mask(self, x: Tensor) -> Tensor | None:
        mask = self.memory.mask
        if mask is None or x.dim() != 3:
            return None
        length = mask.shape[1]
        if mask.shape[0] != x.shape[0] or length > x.shape[1]:
            raise InputError(
                f"expected tokens of shape ({mask.shape[0]}, {length} or more, C) at {self.name!r}, as the attention "
                f"mask has it, got {tuple(x.shape)}: pass a mask of the shape of the tokens, and turn off what splits "
                "sequences (chunk_size_feed_forward, generation with a cache)"
            )
        # Block-sparse attention pads sequences at their end to whole blocks.
        return torch.nn.functional.pad(mask, (0, x.shape[1] - length))


def has_grid_hooks(model: nn.Module) -> bool:
    """Return whether a model already has hooks that pass grids to its norms."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    return any(isinstance(hook, GiveGrid) for hook in hooks)


def tokens_behind(x: Tensor, grid: Grid, extra: ExtraTokens) -> int:
    """Return the number of tokens behind the grid: suffix tokens and padding."""
    surplus = _side(x.shape[1]) - grid[0] * grid[1]
    return surplus - extra.prefix if surplus else 0


def _argument(name: str, position: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs.get(name)


def _is_pair(value: object) -> bool:
    if not isinstance(value, tuple | list | torch.Size) or len(value) != 2:
        return False
    return all(isinstance(side, int | torch.SymInt | Tensor) and not isinstance(side, bool) for side in value)


def _side(value: Any) -> int:
    """Return a size as an int even if `torch.jit.trace` made it a tensor; return a symbolic size unchanged."""
    return int(value) if isinstance(value, Tensor) else value
