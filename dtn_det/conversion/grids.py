"""How a converted norm learns the grid of its tokens, wherever its host hides it.

Hooks record the grid where it is to be seen and hand it to the norms as `hw_shape`. They hold their state in plain
objects, which are copied and pickled together with the model.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Grid = tuple[int, int]
GridFunction = Callable[[int], Grid]

# Arguments by which blocks are told their grid: timm's PVTv2 (feat_size) and Twins (size), MMDetection and mmpretrain
# (hw_shape), Hugging Face (input_dimensions; height and width).
_PAIRS = ("hw_shape", "feat_size", "size", "input_dimensions", "patch_resolution")
_SIDES = ("height", "width")
_MASKS = ("attention_mask",)
# No known model has more class, distillation and register tokens.
_MAX_PREFIX = 16
# Image sizes in flight between a forward pass and its backward pass.
_MAX_GRIDS = 64


@dataclass
class GridMemory:
    """What the hooks of one model have seen in its current forward pass.

    Attributes:
        num_prefix: Class, distillation and register tokens of the model, None if it does not say.
        last: By thread and width of the tokens, the grid of the current forward pass.
        pending: By width, the grids of the forward passes whose activations a backward pass to come may compute again.
        used_again: Whether a backward pass has computed activations again since.
        surpluses: Tokens beyond the grid that norms have met.
        mask: `(B, L)`, True for the tokens that count.
    """

    num_prefix: int | None = None
    last: dict[tuple[int, int], Grid] = field(default_factory=dict)
    pending: dict[int, list[Grid]] = field(default_factory=dict)
    used_again: bool = False
    surpluses: set[int] = field(default_factory=set)
    mask: Tensor | None = None

    def record(self, width: int, grid: Grid) -> None:
        """Keep the grid of tokens of a width."""
        if torch.compiler.is_compiling():
            self.last[_thread(), width] = grid
            return
        if _in_backward():
            return
        self.last[_thread(), width] = grid
        if torch.is_grad_enabled():
            if self.used_again:
                self.pending, self.used_again = {}, False
            known = self.pending.setdefault(width, [])
            if grid not in known:
                self.pending[width] = [*known[1 - _MAX_GRIDS :], grid]

    def grid(self, width: int, num_tokens: int) -> Grid | None:
        """The grid of `num_tokens` tokens of a width, None if none was seen.

        Raises:
            ValueError: Activations are computed again, and two grids fit.
        """
        if torch.compiler.is_compiling() or not _in_backward():
            return self.last.get((_thread(), width))
        self.used_again = True
        fitting = [one for one in self.pending.get(width, []) if num_tokens - one[0] * one[1] in self.surpluses]
        if len(fitting) > 1:
            raise ValueError(
                f"expected one grid of {num_tokens} tokens while activations are computed again, got "
                f"{' and '.join(map(str, fitting))}: with activation checkpointing, run the backward pass of one image "
                "size before the forward pass of another, or put passes that need no gradient under torch.no_grad()"
            )
        return fitting[0] if fitting else self.last.get((_thread(), width))


@dataclass
class BlockGrid:
    """The grid that a block was told in its current call, by thread."""

    grids: dict[int, Grid | None] = field(default_factory=dict)

    @property
    def grid(self) -> Grid | None:
        """That of this thread."""
        return self.grids.get(_thread())

    @grid.setter
    def grid(self, grid: Grid | None) -> None:
        self.grids[_thread()] = grid


@dataclass
class RecordOutput:
    """A forward hook on what makes tokens: it sees `(B, C, H, W)`, or `(tokens, (H, W))`."""

    memory: GridMemory
    widths: frozenset[int]

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep the grid of an output that has one."""
        if isinstance(output, Tensor) and output.dim() == 4:
            _, channels, height, width = map(_side, output.shape)
            if channels in self.widths:
                self.memory.record(channels, (height, width))
        elif isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor):
            tokens, grid = output
            if _is_pair(grid) and tokens.dim() == 3 and _side(tokens.shape[-1]) in self.widths:
                self.memory.record(_side(tokens.shape[-1]), (_side(grid[0]), _side(grid[1])))


@dataclass
class RecordInput:
    """A forward pre-hook on a block: it sees an argument with the grid, or an input `(B, H, W, C)`.

    Attributes:
        target: Where the grid goes.
        width: `C`.
        pair: Name and position of the argument that holds `(H, W)`.
        sides: The same for two arguments, height and width.
    """

    target: BlockGrid
    width: int
    pair: tuple[str, int] | None = None
    sides: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, block: nn.Module, target: BlockGrid, width: int) -> RecordInput:
        """The hook for a block, from the signature of its `forward`."""
        names = list(inspect.signature(block.forward).parameters)
        pair = next(((name, names.index(name)) for name in _PAIRS if name in names), None)
        sides = tuple((name, names.index(name)) for name in _SIDES if name in names)
        return cls(target, width, pair, sides if len(sides) == 2 else ())

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the grid of this call, None if it has none."""
        self.target.grid = self._told(args, kwargs) or self._seen(args, kwargs)

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

    def _seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Grid | None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor) or x.dim() != 4:
            return None
        _, first, second, third = map(_side, x.shape)
        if first == third == self.width != second:
            raise ValueError(
                f"expected to tell (B, H, W, C) from (B, C, H, W), got a map of shape {tuple(x.shape)} with C = "
                f"{self.width}: pass grid=(H, W) to convert_norm"
            )
        if third == self.width:
            return first, second
        return (second, third) if first == self.width else None


@dataclass
class RecordMask:
    """A forward pre-hook on a model of sequences: it sees the mask of padded tokens, `(B, L)`, nonzero for valid."""

    memory: GridMemory
    argument: tuple[str, int]

    @classmethod
    def of(cls, model: nn.Module, memory: GridMemory) -> RecordMask | None:
        """The hook for a model, None if its `forward` takes no mask."""
        names = list(inspect.signature(model.forward).parameters)
        name = next((name for name in _MASKS if name in names), None)
        return None if name is None else cls(memory, (name, names.index(name)))

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the mask of this call, None if it has none."""
        mask = _argument(*self.argument, args, kwargs)
        if isinstance(mask, Tensor) and mask.dim() != 2:
            raise ValueError(
                f"expected {self.argument[0]} of shape (B, L), one number a token, got {tuple(mask.shape)}: converted "
                "norms cannot tell the padded tokens from it"
            )
        self.memory.mask = mask.bool() if isinstance(mask, Tensor) else None


@dataclass
class GiveGrid:
    """A forward pre-hook on a norm of an image model, which adds `hw_shape` to its arguments.

    Attributes:
        name: Of the norm, for errors.
        memory: What the model's hooks have seen.
        block: What its block was told, None for a norm outside of blocks.
        fixed: The grid, or a function of the number of tokens, that the user gave.
    """

    name: str
    memory: GridMemory
    block: BlockGrid | None
    fixed: Grid | GridFunction | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add the grid to the arguments of the norm."""
        x = args[0]
        if x.dim() != 3 or len(args) > 1 or kwargs.get("hw_shape") is not None:
            return args, kwargs
        return args, {**kwargs, "hw_shape": self._grid(x)}

    def _grid(self, x: Tensor) -> Grid:
        num_tokens = _side(x.shape[1])
        grid: Grid | None
        if self.fixed is not None:
            grid = self.fixed(num_tokens) if callable(self.fixed) else self.fixed
        else:
            grid = (self.block.grid if self.block else None) or self.memory.grid(_side(x.shape[-1]), num_tokens)
        if grid is None:
            raise ValueError(
                f"expected to see the grid of the tokens of {self.name!r}, got {tuple(x.shape)} and nothing else: pass "
                "grid=(H, W), or a function of the number of tokens, to convert_norm"
            )
        surplus = num_tokens - grid[0] * grid[1]
        allowed = (0, self.memory.num_prefix) if self.memory.num_prefix is not None else range(_MAX_PREFIX + 1)
        if surplus not in allowed:
            prefix = "" if self.memory.num_prefix is None else f" and {self.memory.num_prefix} prefix tokens"
            raise ValueError(
                f"expected the tokens of {self.name!r} to be a grid of {grid[0]} x {grid[1]}{prefix}, got "
                f"{num_tokens}: DTN needs all tokens of the grid in their places, so turn off what drops or merges "
                "tokens (patch_drop_rate), or pass grid= to convert_norm"
            )
        if not torch.compiler.is_compiling():
            self.memory.surpluses.add(surplus)
        return grid


@dataclass
class GiveSequence:
    """A forward pre-hook on a norm of a sequence model: the grid is `1 x L`, padded tokens do not count.

    Attributes:
        name: Of the norm, for errors.
        memory: What the model's hooks have seen.
        takes_grid: Whether the norm takes `hw_shape`.
    """

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
            raise ValueError(
                f"expected tokens of shape ({mask.shape[0]}, {length} or more, C) at {self.name!r}, as the attention "
                f"mask has it, got {tuple(x.shape)}: pass a mask of the shape of the tokens, and turn off what splits "
                "sequences (chunk_size_feed_forward, generation with a cache)"
            )
        # Block-sparse attention pads sequences to whole blocks, at their end.
        return torch.nn.functional.pad(mask, (0, x.shape[1] - length))


def has_grid_hooks(model: nn.Module) -> bool:
    """Whether norms of a model are given their grid already."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    return any(isinstance(hook, GiveGrid) for hook in hooks)


def _argument(name: str, position: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs.get(name)


def _is_pair(value: object) -> bool:
    if not isinstance(value, tuple | list | torch.Size) or len(value) != 2:
        return False
    return all(isinstance(side, int | torch.SymInt | Tensor) and not isinstance(side, bool) for side in value)


def _side(value: Any) -> int:
    """A side of a shape, which `torch.jit.trace` gives as a tensor; symbols of a compiler stay what they are."""
    return int(value) if isinstance(value, Tensor) else value


def _thread() -> int:
    """Whose call it is: a model may be called by several threads at once. A compiled graph is none of them."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _in_backward() -> bool:
    """Whether autograd runs, so that what is computed is computed again."""
    return torch._C._current_graph_task_id() != -1
