"""The grids of tokens that the hooks of a converted model have seen in its current forward pass.

The outermost call of the model is a forward pass. When it starts, all grids of earlier passes are forgotten. When it
ends, even with an error, the grids of this pass are forgotten. If a part of the model is called by itself (timm's
`forward_features`), no call marks where the pass starts and ends; then each norm may read a grid once.

A host is a part of the model that makes tokens and contains the blocks that process them, such as the vision tower of a
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

# Largest number of grids to store between a forward pass and its backward pass.
_MAX_GRIDS = 64


@dataclass(frozen=True)
class PatchLayout:
    """The patch layout of a batch, as read from the arguments of a host.

    Attributes:
        grid: `(H, W)`, the same for all images; padding may follow the tokens of the grid. None if the images have no
            common grid.
        source: Names of the arguments from which the layout was read.
        problem: What was found instead of a common grid, for error messages; empty if there is a common grid.
    """

    grid: Grid | None
    batch: int
    source: str
    problem: str = ""


@dataclass
class ToldLayout:
    """A patch layout, and the module that received it as arguments.

    Attributes:
        path: Path of the module.
        readers: Names of the norms that have read the layout; used only if a part of the model is called by itself.
    """

    path: str
    layout: PatchLayout
    readers: set[str] = field(default_factory=set)


@dataclass
class SeenGrid:
    """A grid that a hook has seen.

    Attributes:
        padded: True if padding may follow the tokens of the grid.
        readers: Names of the norms that have read the grid; used only if a part of the model is called by itself.
    """

    grid: Grid
    batch: int
    padded: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class GridMemory:
    """Everything that the hooks of one model have seen in its current forward pass.

    Grids are stored under the host's path and the width (number of channels) of its tokens.

    Attributes:
        outermost: For each thread, the path of the outermost module that is being called.
        seen: For each thread, host and width, the grid of the current forward pass.
        layouts: For each thread and host, the patch layout of the current forward pass.
        pending: For each host and width, the grids of earlier passes whose activations a backward pass may still
            recompute (activation checkpointing). Each grid has a flag that is True if padding may follow its tokens.
        used_again: True if a backward pass has recomputed activations since a grid was last added to `pending`.
        surpluses: All numbers of tokens outside the grid, such as prefix tokens, that norms have received so far.
        mask: `(B, L)`, True for the valid tokens of sequences; None if there is no mask.
    """

    outermost: dict[int, str] = field(default_factory=dict)
    seen: dict[tuple[int, str, int], SeenGrid] = field(default_factory=dict)
    layouts: dict[tuple[int, str], ToldLayout] = field(default_factory=dict)
    pending: dict[tuple[str, int], list[tuple[Grid, bool]]] = field(default_factory=dict)
    used_again: bool = False
    surpluses: set[int] = field(default_factory=set)
    mask: Tensor | None = None

    def tell_layout(self, host: str, path: str, layout: PatchLayout | None) -> None:
        """Store the patch layout in a module's arguments, unless an enclosing module has stored one in this call."""
        key = current_thread(), host
        told = self.layouts.get(key)
        if told is not None and path != told.path and path.startswith(f"{told.path}." if told.path else ""):
            return
        if layout is None:
            self.layouts.pop(key, None)
        else:
            self.layouts[key] = ToldLayout(path, layout)

    def read_layout(self, hosts: tuple[str, ...], name: str) -> PatchLayout | None:
        """Return the patch layout that the nearest host around a norm received in this pass; None if there is none."""
        thread = current_thread()
        told = next((self.layouts[thread, host] for host in hosts if (thread, host) in self.layouts), None)
        if told is None or thread in self.outermost:
            return told.layout if told else None
        if name in told.readers:
            return None  # an earlier pass's layout; this pass received none
        told.readers.add(name)
        return told.layout

    def record(self, host: str, width: int, grid: Grid, batch: int) -> None:
        """Store the grid of a host's tokens with `width` channels."""
        thread = current_thread()
        if _computes_again() and thread not in self.outermost:
            return
        self.seen[thread, host, width] = SeenGrid(grid, batch)
        self.keep_for_backward(host, width, grid)

    def keep_for_backward(self, host: str, width: int, grid: Grid, padded: bool = False) -> None:
        """Store a grid, because the backward pass may recompute activations (activation checkpointing)."""
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and not _computes_again():
            if self.used_again:
                self.pending, self.used_again = {}, False
            known = self.pending.setdefault((host, width), [])
            if (grid, padded) not in known:
                self.pending[host, width] = [*known[1 - _MAX_GRIDS :], (grid, padded)]

    def find(self, hosts: tuple[str, ...], width: int, name: str, num_tokens: int) -> SeenGrid | None:
        """Return the grid of a norm's tokens; None if this pass has seen no grid of this width.

        Args:
            hosts: Paths of the hosts around the norm, the nearest first.

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
            return None  # an earlier pass's grid; this pass has seen none
        seen.readers.add(name)
        return seen

    def start(self, path: str) -> None:
        """Record the start of a call. If no other call is running, a pass starts: forget grids of earlier passes."""
        thread = current_thread()
        if self.outermost.get(thread, path) == path:
            self._forget(thread)
            self.outermost[thread] = path

    def end(self, path: str) -> None:
        """Record the end of a module's call. If this was the outermost call, the pass ends: forget its grids."""
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
class PassHooks:
    """Hooks that report the start and the end of a module's calls to the grid memory."""

    memory: GridMemory
    path: str

    def start(self, module: nn.Module, args: Any) -> None:
        """Record the start of a call; used as a forward pre-hook."""
        self.memory.start(self.path)

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        """Record the end of a call; used as a forward hook that also runs after errors."""
        self.memory.end(self.path)


@dataclass
class BlockGrid:
    """The grid that a block received in its current call, for each thread.

    Attributes:
        grids: For each thread, the grid; None if the block received no grid.
        readings: For each thread, the two possible grids, if the shape of the map fits both `(B, H, W, C)` and `(B, C,
            H, W)`.
    """

    grids: dict[int, Grid | None] = field(default_factory=dict)
    readings: dict[int, tuple[Grid, Grid]] = field(default_factory=dict)

    @property
    def grid(self) -> Grid | None:
        """The grid that the current thread's call received; None if it received none."""
        return self.grids.get(current_thread())

    @property
    def unclear(self) -> tuple[Grid, Grid] | None:
        """The two possible grids of the current thread's map, first of `(B, H, W, C)`; None if the grid is known."""
        return None if self.grid else self.readings.get(current_thread())

    def tell(self, grid: Grid | None, readings: tuple[Grid, Grid] | None = None) -> None:
        """Store the grid, or the two possible grids, of the call that starts in the current thread."""
        thread = current_thread()
        self.grids[thread] = grid
        if readings is not None:
            self.readings[thread] = readings
        else:
            self.readings.pop(thread, None)

    def forget(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the grid of the current thread's call; used as a forward hook that also runs after errors."""
        thread = current_thread()
        self.grids.pop(thread, None)
        self.readings.pop(thread, None)


def current_thread() -> int:
    """Return the id of the current thread, because several threads may call a model at once; 0 in a compiled graph."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _computes_again() -> bool:
    """Return whether a backward pass is running. A forward call within it recomputes activations (checkpointing)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
