"""Patch layouts that models receive as arguments: the position of each patch in its image, and the padding.

Models such as NaFlex take patches instead of images, in one row per image. The grids of the images differ, so rows are
padded to a common length, and arguments contain the grid of each image. Converted norms accept only batches whose
images have the same grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.conversion.grid_memory import Grid, GridMemory, PatchLayout
from dtn_det.conversion.hosts.traits import arguments

# Names of the arguments with the patch layout. timm's NaFlexVit has coordinates (B, N, 2) and validity (B, N). SigLIP 2
# has grids (B, 2) and validity (B, N). Idefics and related models have a map (B, H, W) of valid patches.
_COORDINATES = "patch_coord"
_SHAPES = "spatial_shapes"
_VALID = ("patch_valid", "pixel_attention_mask")
_CELLS = "patch_attention_mask"
_NAMES = (_COORDINATES, _SHAPES, *_VALID, _CELLS)


def tells_layout(module: nn.Module) -> bool:
    """Return whether a module has an argument that contains the patch layout."""
    names = set(arguments(module))
    # `spatial_shapes` contains the patch layout only in modules that take images. Others, such as encoders of
    # deformable attention, use this name for the sizes of feature maps.
    return not (set(_NAMES) - (set() if "pixel_values" in names else {_SHAPES})).isdisjoint(names)


def read_layout(told: Mapping[str, Any]) -> PatchLayout | None:
    """Read the patch layout from the arguments of a host.

    Args:
        told: Arguments by name: ``patch_coord`` `(B, N, 2)`, ``spatial_shapes`` `(B, 2)`, ``patch_valid`` and
            ``pixel_attention_mask`` `(B, N)`, ``patch_attention_mask`` `(B, H, W)`. Other arguments are ignored.

    Returns:
        The patch layout. Without a common grid of the images, its ``problem`` says why. None if no argument contains
        the layout.
    """
    valid_name = next((name for name in _VALID if _is_tensor(told.get(name), 2)), None)
    valid = None if valid_name is None else told[valid_name].bool()
    coordinates: Any = told.get(_COORDINATES)
    shapes: Any = told.get(_SHAPES)
    cells: Any = told.get(_CELLS)
    if _is_tensor(coordinates, 3):
        return _of_coordinates(coordinates, valid)
    if isinstance(shapes, list | tuple) and shapes:
        shapes = torch.tensor([list(map(int, shape)) for shape in shapes])
    if _is_tensor(shapes, 2) and shapes.shape[1] == 2:
        grids = [(int(height), int(width)) for height, width in shapes.tolist()]
        return _of_grids(grids, valid, f"{_SHAPES}{f' and {valid_name}' if valid_name else ''}")
    if _is_tensor(cells, 3):
        return _of_cells(cells.bool())
    if valid is not None and not bool(valid.all()):
        counts = sorted(set(valid.sum(1).tolist()))
        problem = f"{' or '.join(map(str, counts))} patches an image and padding, and no grid, by {valid_name}"
        return PatchLayout(None, len(valid), str(valid_name), problem)
    return None


@dataclass
class RecordLayout:
    """A forward pre-hook on a module that receives the patch layout as arguments.

    Attributes:
        host: Path of the host that makes the tokens.
        names: Names of the arguments of the module's `forward`.
    """

    memory: GridMemory
    host: str
    path: str
    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Store the patch layout of this call."""
        told: dict[str, Any] = {}
        for name, value in (*zip(self.names, args, strict=False), *kwargs.items()):
            # NaFlexVit also takes these arguments in one dictionary.
            told.update(value if isinstance(value, Mapping) else {name: value} if value is not None else {})
        self.memory.tell_layout(self.host, self.path, read_layout(told))


def _of_coordinates(coordinates: Tensor, valid: Tensor | None) -> PatchLayout:
    if valid is None:
        valid = torch.ones(coordinates.shape[:2], dtype=torch.bool, device=coordinates.device)
    found = coordinates.masked_fill(~valid[..., None], -1).amax(1) + 1
    grids = [(int(height), int(width)) for height, width in found.tolist()]
    layout = _of_grids(grids, valid, _COORDINATES)
    if layout.grid is None:
        return layout
    height, width = layout.grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    expected = torch.stack([rows, columns], -1).flatten(0, 1).to(coordinates)
    if not bool((coordinates[:, : height * width] == expected).all()):
        problem = f"patches of {height} x {width} that do not come row by row, by {_COORDINATES}"
        return PatchLayout(None, len(grids), _COORDINATES, problem)
    return layout


def _of_grids(grids: list[Grid], valid: Tensor | None, source: str) -> PatchLayout:
    different = list(dict.fromkeys(grids))
    if len(different) > 1:
        some = ", ".join(f"{height} x {width}" for height, width in different[:4])
        more = ", ..." if len(different) > 4 else ""
        problem = f"a batch of images of different grids, padded ({some}{more} by {source})"
        return PatchLayout(None, len(grids), source, problem)
    ((height, width),) = different
    if valid is not None:
        number = height * width
        if not bool(valid[:, :number].all()) or bool(valid[:, number:].any()) or valid.shape[1] < number:
            problem = f"tokens that are not {height} x {width} patches and padding behind them, by {source}"
            return PatchLayout(None, len(grids), source, problem)
    return PatchLayout((height, width), len(grids), source)


def _of_cells(cells: Tensor) -> PatchLayout | None:
    """Read the layout from a map of valid patches; None if all are valid, because the map then shows the grid."""
    if bool(cells.all()):
        return None
    grids = list(zip(cells.any(2).sum(1).tolist(), cells.any(1).sum(1).tolist(), strict=True))
    layout = _of_grids(grids, None, _CELLS)
    if layout.grid is None:
        return layout
    height, width = layout.grid
    problem = f"images of {height} x {width} patches padded to {cells.shape[1]} x {cells.shape[2]}, by {_CELLS}"
    return PatchLayout(None, len(grids), _CELLS, problem)


def _is_tensor(value: Any, dim: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == dim
