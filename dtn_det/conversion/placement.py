"""A check for models with code from outside the known libraries: do their tokens lie where the norms expect them?

What the libraries do with their tokens is known and tested (`hosts/traits.py`). A subclass may place tokens elsewhere,
for instance the class token in the middle of the patches, and no shape shows it. So the first image of such a model is
run through the embedding a few times before the actual forward pass, each time with another patch changed. Among the
tokens that enter the first block, the token of the changed patch must change most.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.conversion.grid_memory import Grid
from dtn_det.conversion.grids import tokens_behind
from dtn_det.conversion.hosts.traits import ExtraTokens
from dtn_det.errors import InputError

_LIBRARIES = frozenset(
    ("torch", "torchvision", "timm", "transformers", "huggingface_hub", "mmpretrain", "mmdet", "mmcv", "mmengine")
)
_KNOWN = _LIBRARIES | sys.stdlib_module_names - {"__main__"} | {"dtn_det"}


def code_from_outside(host: Iterable[nn.Module]) -> tuple[str, ...]:
    """List the methods of a host that no known library defines, such as `MyViT._pos_embed`, which may move tokens.

    Args:
        host: The modules of a model, without the modules in its blocks: blocks do not change the order of tokens.
    """
    bases: dict[type, None] = {}
    found: list[str] = []
    for module in host:
        bases.update(dict.fromkeys(type(module).__mro__))
        if not _METHODS.isdisjoint(map(type, vars(module).values())):
            found += [f"{type(module).__name__}.{name}" for name, value in vars(module).items() if _is_strange(value)]
    for base in bases:
        if base.__module__.startswith("torch."):
            continue
        names = (name for name, value in vars(base).items() if _is_strange(value))
        found += [f"{base.__name__}.{name}" for name in names if not name.startswith("__")]
    return tuple(dict.fromkeys(found))


@dataclass
class VerifyPlaces:
    """A forward pre-hook on a model with code from outside the known libraries.

    It changes a few patches of the first image and checks which tokens change.

    Attributes:
        norm: Path of the first converted norm in a block.
        block: Path of the first block in the stage of that norm. Before this block, tokens have not been mixed.
        extra: How many tokens of the model lie outside the grid.
    """

    methods: tuple[str, ...]
    norm: str
    block: str
    extra: ExtraTokens
    done: bool = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check the first image among the arguments, if there is one."""
        if self.done or torch.compiler.is_exporting():
            return
        if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            self._verify(module, args, kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _verify(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        arguments: dict[str | int, Any] = dict(enumerate(args)) | dict(kwargs)
        key = next((key for key, value in arguments.items() if _is_images(value)), None)
        if key is None or arguments[key].is_meta:
            return
        self.done = True
        images = arguments[key]
        one = {name: _first(value, len(images)) for name, value in arguments.items()}
        with _undisturbed(model, images.device), _Tap(model, self) as tap:
            plain = tap.tokens(one)
            if plain is None:
                return  # the tokens are not `(B, N, C)`, or the actual pass will raise the error
            tokens, grid = plain
            for cell in _cells(grid):
                changed = tap.tokens({**one, key: _with_other_patch(images[:1], grid, cell)})
                if changed is None or changed[0].shape != tokens.shape:
                    return
                self._check(changed[0] - tokens, grid, cell, type(model).__name__)

    def _check(self, change: Tensor, grid: Grid, cell: tuple[int, int], name: str) -> None:
        height, width = grid
        energy = change[0].double().square().sum(-1)
        if not bool(energy.isfinite().all()) or not bool(energy.any()):
            return
        place = int(energy.argmax()) - (len(energy) - height * width)
        # Patches may overlap, so the token of a neighbouring patch may change more.
        if place >= 0 and max(abs(place // width - cell[0]), abs(place % width - cell[1])) <= 1:
            return
        where = f"at {divmod(place, width)}" if place >= 0 else "among the tokens before the grid"
        self.done = False
        code = f"{', '.join(self.methods[:4])} {'do' if len(self.methods) > 1 else 'does'}"
        raise InputError(
            f"expected the patches of an image row by row in a grid of {height} x {width} at {self.norm!r}, got the "
            f"patch {cell} of {name} {where}: see what {code} "
            "to the order of tokens, and let class tokens come before all patches, or convert to another norm than DTN"
        )


class _Seen(Exception):  # noqa: N818
    """Raised to end a forward pass as soon as it reaches the norm."""


class _Tap:
    """Runs a model up to a norm, and records the tokens that enter the norm's block, in the order for the norm."""

    def __init__(self, model: nn.Module, where: VerifyPlaces) -> None:
        self._model = model
        self._norm, self._block = model.get_submodule(where.norm), model.get_submodule(where.block)
        self._extra = where.extra
        self._stream: Tensor | None = None
        self._found: tuple[Tensor, Grid] | None = None

    def __enter__(self) -> _Tap:
        # The block's hook runs before tokens behind the grid are moved to the front, the norm's hook after it.
        self._handles = [
            self._block.register_forward_pre_hook(self._see_block, prepend=True, with_kwargs=True),
            self._norm.register_forward_pre_hook(self._see_norm, with_kwargs=True),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def tokens(self, arguments: Mapping[str | int, Any]) -> tuple[Tensor, Grid] | None:
        """Return tokens `(1, N, C)`, with the grid's tokens last, and the grid; None if the block has another input."""
        self._found = self._stream = None
        args = [value for key, value in arguments.items() if isinstance(key, int)]
        try:
            self._model(*args, **{str(key): value for key, value in arguments.items() if not isinstance(key, int)})
        except _Seen:
            return self._found
        except Exception:
            return None
        return None

    def _see_block(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        self._stream = x if isinstance(x, Tensor) and x.dim() == 3 else None

    def _see_norm(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        grid = kwargs.get("hw_shape")
        x = args[0]
        if self._stream is not None and grid is not None and x.dim() == 3 and x.shape[:2] == self._stream.shape[:2]:
            behind = tokens_behind(x, grid, self._extra) if self._extra.suffix else 0
            self._found = self._stream.roll(behind, 1), grid
        raise _Seen


_METHODS = {types.FunctionType, types.MethodType}


def _is_strange(value: object) -> bool:
    """Return whether a value is a function or method that no known library defines."""
    return type(value) in _METHODS and (value.__module__ or "torch").partition(".")[0] not in _KNOWN


def _is_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and len(value) > 0 and not value.is_complex()


def _first(value: Any, batch: int) -> Any:
    """Return the first item of a tensor with `batch` items; return any other value unchanged."""
    return value[:1] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch else value


def _cells(grid: Grid) -> list[tuple[int, int]]:
    """Return five cells of a grid: three corners, the middle of the left side, and one inside."""
    height, width = grid
    rows = (0, height - 1, height // 2, height // 3, 0)
    columns = (0, width - 1, 0, width // 2, width - 1)
    return list(dict.fromkeys(zip(rows, columns, strict=True)))


def _with_other_patch(images: Tensor, grid: Grid, cell: tuple[int, int]) -> Tensor:
    """Return the images with different pixels in one cell of the grid."""
    rows, columns = (
        slice(side * place // number, max(side * (place + 1) // number, side * place // number + 1))
        for side, place, number in zip(images.shape[2:], cell, grid, strict=True)
    )
    images = images.clone()
    patch = images[..., rows, columns]
    if images.is_floating_point():
        noise = torch.randn(patch.shape, generator=torch.Generator().manual_seed(0)).to(images)
        images[..., rows, columns] = patch + noise * images.float().std().clamp(min=0.1).to(images)
    else:
        images[..., rows, columns] = patch.max() - patch
    return images


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Set evaluation mode, and afterwards restore the random state, the buffers and the modes."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, mode in training:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
