"""The grids that the hooks of a converted model have seen in its current forward pass.

The outermost call of the model forgets all grids of earlier passes when it starts, and its own when it ends, also after
an error. If a part of the model is called by itself (timm's `forward_features`), no call marks where the pass starts
and ends; then each norm may read a grid once.

A host is a part of the model that makes tokens and contains the blocks that take them, such as the vision tower of a
CLIP.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.errors import InputError

Grid = tuple[int, int]

# Largest number of grids that are kept between a forward pass and its backward pass.
_MAX_GRIDS = 64


@dataclass(frozen=True)
class PatchLayout:
    """The layout of patches that a host was given in its arguments.

    Attributes:
        grid: `(H, W)` of all images, whose tokens padding may follow. None if the images have no common grid.
        batch: Number of images.
        source: Names of the arguments from which the layout was read.
        problem: What was found instead of a grid, for the message of an error.
    """

    grid: Grid | None
    batch: int
    source: str
    problem: str = ""


@dataclass
class ToldLayout:
    """A layout of patches, and the module that it was given to.

    Attributes:
        path: Path of the module.
        layout: The layout.
        readers: Names of the norms that have read it, where only a part of the model is called.
    """

    path: str
    layout: PatchLayout
    readers: set[str] = field(default_factory=set)


@dataclass
class SeenGrid:
    """A grid that a hook has seen.

    Attributes:
        grid: `(H, W)`.
        batch: Number of images.
        padded: True if padding may follow the tokens of the grid.
        readers: Names of the norms that have read it, where only a part of the model is called.
    """

    grid: Grid
    batch: int
    padded: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class GridMemory:
    """All that the hooks of one model have seen in its current forward pass.

    Grids are kept by the path of the host and by the width of its tokens.

    Attributes:
        outermost: By thread, the path of the outermost module whose call runs.
        seen: By thread, host and width, the grid of the current forward pass.
        layouts: By thread and host, the layout of patches of the current forward pass.
        pending: By host and width, the grids of passes whose activations a later backward pass may recompute
            (activation checkpointing), each with True if padding may follow its tokens.
        used_again: True if a backward pass has recomputed activations since grids were last added to `pending`.
        surpluses: The numbers of tokens outside the grid that norms have met so far.
        mask: `(B, L)`, True for the valid tokens of sequences; None without a mask.
    """

    outermost: dict[int, str] = field(default_factory=dict)
    seen: dict[tuple[int, str, int], SeenGrid] = field(default_factory=dict)
    layouts: dict[tuple[int, str], ToldLayout] = field(default_factory=dict)
    pending: dict[tuple[str, int], list[tuple[Grid, bool]]] = field(default_factory=dict)
    used_again: bool = False
    surpluses: set[int] = field(default_factory=set)
    mask: Tensor | None = None

    def tell_layout(self, host: str, path: str, layout: PatchLayout | None) -> None:
        """Keep the layout that a module was given, unless a module around it was given one in this call."""
        key = current_thread(), host
        told = self.layouts.get(key)
        if told is not None and path != told.path and path.startswith(f"{told.path}." if told.path else ""):
            return
        if layout is None:
            self.layouts.pop(key, None)
        else:
            self.layouts[key] = ToldLayout(path, layout)

    def read_layout(self, hosts: tuple[str, ...], name: str) -> PatchLayout | None:
        """Return the layout that the nearest host around a norm was given in this pass, or None."""
        thread = current_thread()
        told = next((self.layouts[thread, host] for host in hosts if (thread, host) in self.layouts), None)
        if told is None or thread in self.outermost:
            return told.layout if told else None
        if name in told.readers:
            return None  # a second pass, in which no layout was given
        told.readers.add(name)
        return told.layout

    def record(self, host: str, width: int, grid: Grid, batch: int) -> None:
        """Keep the grid of the tokens of this width that a host has made."""
        thread = current_thread()
        if _computes_again() and thread not in self.outermost:
            return
        self.seen[thread, host, width] = SeenGrid(grid, batch)
        self.keep_for_backward(host, width, grid)

    def keep_for_backward(self, host: str, width: int, grid: Grid, padded: bool = False) -> None:
        """Keep a grid for a backward pass that recomputes activations."""
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and not _computes_again():
            if self.used_again:
                self.pending, self.used_again = {}, False
            known = self.pending.setdefault((host, width), [])
            if (grid, padded) not in known:
                self.pending[host, width] = [*known[1 - _MAX_GRIDS :], (grid, padded)]

    def find(self, hosts: tuple[str, ...], width: int, name: str, num_tokens: int) -> SeenGrid | None:
        """Return the grid of the tokens that a norm gets, or None if none was seen in this pass.

        Args:
            hosts: The hosts around the norm, the nearest first.
            width: Width of the tokens.
            name: Path of the norm.
            num_tokens: Number of the tokens.

        Raises:
            InputError: Activations are being recomputed, and more than one grid fits.
        """
        thread = current_thread()
        if _computes_again() and thread not in self.outermost:
            return self._pending_grid(hosts, width, num_tokens)
        seen = next((self.seen[thread, host, width] for host in hosts if (thread, host, width) in self.seen), None)
        if seen is None or torch.compiler.is_compiling() or thread in self.outermost:
            return seen
        if name in seen.readers:
            return None  # a second pass, in which no grid was seen
        seen.readers.add(name)
        return seen

    def start(self, path: str) -> None:
        """Note that a module is called; if its call is the outermost one, the grids of earlier passes are forgotten."""
        thread = current_thread()
        if self.outermost.get(thread, path) == path:
            self._forget(thread)
            self.outermost[thread] = path

    def end(self, path: str) -> None:
        """Note that the call of a module ends; if it was the outermost one, the pass is over."""
        thread = current_thread()
        if self.outermost.get(thread) == path:
            self._forget(thread)
            del self.outermost[thread]

    def _forget(self, thread: int) -> None:
        for key in [key for key in self.seen if key[0] == thread]:
            del self.seen[key]
        for told in [told for told in self.layouts if told[0] == thread]:
            del self.layouts[told]

    def _pending_grid(self, hosts: tuple[str, ...], width: int, num_tokens: int) -> SeenGrid | None:
        self.used_again = True
        known = next((self.pending[host, width] for host in hosts if (host, width) in self.pending), [])
        fitting = [
            (grid, padded)
            for grid, padded in known
            if any(
                num_tokens - surplus >= grid[0] * grid[1] if padded else num_tokens - surplus == grid[0] * grid[1]
                for surplus in self.surpluses
            )
        ]
        if len(fitting) > 1:
            found = " and ".join(str(grid) for grid, _ in fitting)
            raise InputError(
                f"expected one grid of {num_tokens} tokens while activations are computed again, got {found}: with "
                "activation checkpointing, run the backward pass of one image size before the forward pass of another, "
                "or put passes that need no gradient under torch.no_grad()"
            )
        return SeenGrid(fitting[0][0], -1, fitting[0][1]) if fitting else None


@dataclass
class StartPass:
    """A forward pre-hook on a module whose call may be the outermost one of a pass."""

    memory: GridMemory
    path: str

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Forget the grids that an earlier pass has left."""
        self.memory.start(self.path)


@dataclass
class EndPass:
    """The forward hook on the same module as :class:`StartPass`; it must run after errors too."""

    memory: GridMemory
    path: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget what this pass has seen."""
        self.memory.end(self.path)


@dataclass
class BlockGrid:
    """The grid that a block was given in its current call, by thread.

    Attributes:
        grids: By thread, the grid; None if the block was given none.
        readings: By thread, the two possible grids of a map whose shape fits both `(B, H, W, C)` and `(B, C, H, W)`.
    """

    grids: dict[int, Grid | None] = field(default_factory=dict)
    readings: dict[int, tuple[Grid, Grid]] = field(default_factory=dict)

    @property
    def grid(self) -> Grid | None:
        """The grid of the call that the current thread runs, or None."""
        return self.grids.get(current_thread())

    @property
    def unclear(self) -> tuple[Grid, Grid] | None:
        """The two readings of the current thread's map, `(B, H, W, C)` first; None if its grid is clear."""
        return None if self.grid else self.readings.get(current_thread())

    def tell(self, grid: Grid | None, readings: tuple[Grid, Grid] | None = None) -> None:
        """Keep the grid, or the two readings, of the call that starts in the current thread."""
        thread = current_thread()
        self.grids[thread] = grid
        if readings is not None:
            self.readings[thread] = readings
        else:
            self.readings.pop(thread, None)

    def forget(self) -> None:
        """Forget the call of the current thread, which has ended."""
        thread = current_thread()
        self.grids.pop(thread, None)
        self.readings.pop(thread, None)


@dataclass
class EndBlock:
    """A forward hook on a block, which must run after errors too."""

    block: BlockGrid

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the grid of this call."""
        self.block.forget()


def current_thread() -> int:
    """Return the id of the current thread, since several may call a model at once; 0 in a compiled graph."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _computes_again() -> bool:
    """Return whether a backward pass runs: a forward call in it can only recompute activations (checkpointing)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
