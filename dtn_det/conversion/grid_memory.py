"""The grids that the hooks of a converted model have seen in its current forward pass.

Nothing that is seen outlives the pass: the outermost call of the model forgets it when it starts and when it ends, also
with an error. Where a part of the model is called by itself (timm's `forward_features`), no call brackets the pass:
there, each norm may read a grid once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.errors import InputError

Grid = tuple[int, int]

# Image sizes in flight between a forward pass and its backward pass.
_MAX_GRIDS = 64


@dataclass(frozen=True)
class PatchLayout:
    """What a host was told of the patches of its images.

    Attributes:
        grid: `(H, W)` of all images; padding may stand behind it. None where there is no such grid.
        batch: Number of images.
        source: The arguments that say so.
        problem: Why there is no grid, as what was got.
    """

    grid: Grid | None
    batch: int
    source: str
    problem: str = ""


@dataclass
class ToldLayout:
    """A layout and who was told it.

    Attributes:
        path: Of the module that was told.
        layout: What it was told.
        readers: Norms that have read it outside of a bracketed pass.
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
        padded: Whether padding may stand behind the grid.
        readers: Norms that have read it outside of a bracketed pass.
    """

    grid: Grid
    batch: int
    padded: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class GridMemory:
    """What the hooks of one model have seen in its current forward pass.

    Grids are kept by host, which is the path of the part of the model that makes tokens and has the blocks that take
    them (the vision tower of a CLIP), and by the width of the tokens.

    Attributes:
        outermost: By thread, the path of the outermost module whose call runs.
        seen: By thread, host and width, the grid of the current forward pass.
        layouts: By thread and host, what was told of patches in the current forward pass.
        pending: By host and width, the grids of the passes whose activations a backward pass to come may compute again,
            and whether padding may stand behind them.
        used_again: Whether a backward pass has computed activations again since.
        surpluses: Tokens beyond the grid that norms have met.
        mask: `(B, L)`, True for the tokens that count.
    """

    outermost: dict[int, str] = field(default_factory=dict)
    seen: dict[tuple[int, str, int], SeenGrid] = field(default_factory=dict)
    layouts: dict[tuple[int, str], ToldLayout] = field(default_factory=dict)
    pending: dict[tuple[str, int], list[tuple[Grid, bool]]] = field(default_factory=dict)
    used_again: bool = False
    surpluses: set[int] = field(default_factory=set)
    mask: Tensor | None = None

    def tell_layout(self, host: str, path: str, layout: PatchLayout | None) -> None:
        """Keep what a module was told of patches; a module inside of one that was told more in this call has no say."""
        key = current_thread(), host
        told = self.layouts.get(key)
        if told is not None and path != told.path and path.startswith(f"{told.path}." if told.path else ""):
            return
        if layout is None:
            self.layouts.pop(key, None)
        else:
            self.layouts[key] = ToldLayout(path, layout)

    def read_layout(self, hosts: tuple[str, ...], name: str) -> PatchLayout | None:
        """What the nearest of the hosts around a norm was told of patches in this pass."""
        thread = current_thread()
        told = next((self.layouts[thread, host] for host in hosts if (thread, host) in self.layouts), None)
        if told is None or thread in self.outermost:
            return told.layout if told else None
        if name in told.readers:
            return None  # a second pass, in which nothing was told
        told.readers.add(name)
        return told.layout

    def record(self, host: str, width: int, grid: Grid, batch: int) -> None:
        """Keep the grid of tokens of a width in a host."""
        thread = current_thread()
        if _computes_again() and thread not in self.outermost:
            return
        self.seen[thread, host, width] = SeenGrid(grid, batch)
        self.keep_for_backward(host, width, grid)

    def keep_for_backward(self, host: str, width: int, grid: Grid, padded: bool = False) -> None:
        """Keep a grid for a backward pass that computes activations again."""
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and not _computes_again():
            if self.used_again:
                self.pending, self.used_again = {}, False
            known = self.pending.setdefault((host, width), [])
            if (grid, padded) not in known:
                self.pending[host, width] = [*known[1 - _MAX_GRIDS :], (grid, padded)]

    def find(self, hosts: tuple[str, ...], width: int, name: str, num_tokens: int) -> SeenGrid | None:
        """The grid of the tokens that a norm gets, None if none was seen in this pass.

        Args:
            hosts: The hosts around the norm, the nearest first.
            width: Of the tokens.
            name: Of the norm.
            num_tokens: Their number.

        Raises:
            ValueError: Activations are computed again, and two grids fit.
        """
        thread = current_thread()
        if _computes_again() and thread not in self.outermost:
            return self._pending_grid(hosts, width, num_tokens)
        seen = next((self.seen[thread, host, width] for host in hosts if (thread, host, width) in self.seen), None)
        if seen is None or torch.compiler.is_compiling() or thread in self.outermost:
            return seen
        if name in seen.readers:
            return None  # a second pass, in which nothing was seen
        seen.readers.add(name)
        return seen

    def start(self, path: str) -> None:
        """A module is called; the grids of an earlier pass are forgotten where its call is the outermost one."""
        thread = current_thread()
        if self.outermost.get(thread, path) == path:
            self._forget(thread)
            self.outermost[thread] = path

    def end(self, path: str) -> None:
        """The call of a module ends; where it was the outermost one, the pass is over."""
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
        """Forget what an earlier pass has left."""
        self.memory.start(self.path)


@dataclass
class EndPass:
    """The forward hook that belongs to :class:`StartPass`; it must run after errors too."""

    memory: GridMemory
    path: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget what this pass has seen."""
        self.memory.end(self.path)


@dataclass
class BlockGrid:
    """The grid that a block was told in its current call, by thread.

    Attributes:
        grids: By thread, the grid, None where the block was told none.
        readings: By thread, the two grids of a map of which `(B, H, W, C)` and `(B, C, H, W)` both fit the width.
    """

    grids: dict[int, Grid | None] = field(default_factory=dict)
    readings: dict[int, tuple[Grid, Grid]] = field(default_factory=dict)

    @property
    def grid(self) -> Grid | None:
        """The grid of the call that runs in this thread."""
        return self.grids.get(current_thread())

    @property
    def unclear(self) -> tuple[Grid, Grid] | None:
        """The readings of the map that the block got in this thread, `(B, H, W, C)` first, if they are two."""
        return None if self.grid else self.readings.get(current_thread())

    def tell(self, grid: Grid | None, readings: tuple[Grid, Grid] | None = None) -> None:
        """Keep what the call that starts in this thread was told."""
        thread = current_thread()
        self.grids[thread] = grid
        if readings is not None:
            self.readings[thread] = readings
        else:
            self.readings.pop(thread, None)

    def forget(self) -> None:
        """The call of this thread has ended."""
        thread = current_thread()
        self.grids.pop(thread, None)
        self.readings.pop(thread, None)


@dataclass
class EndBlock:
    """A forward hook on a block, which must run after errors too."""

    block: BlockGrid

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget what this call was told."""
        self.block.forget()


def current_thread() -> int:
    """Whose call it is: a model may be called by several threads at once. A compiled graph is none of them."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _computes_again() -> bool:
    """Whether autograd runs, so that what is computed is computed again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
