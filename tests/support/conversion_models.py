"""Small models of every kind, and what their converted norms are told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.layers import DTN

# Of a check by gradients.
_NUM_IMAGES = 6

Call = tuple[str, tuple[int, ...], Any]


@contextmanager
def norm_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Path, shape of the input and `hw_shape` of each call of a DTN."""
    calls: list[Call] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            calls.append((name, tuple(args[0].shape), kwargs.get("hw_shape")))

        return hook

    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, DTN)]
    handles = [norm.register_forward_hook(record(name), with_kwargs=True) for name, norm in norms]
    yield calls
    for handle in handles:
        handle.remove()


def pass_by(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let modules of a class or a name give back what they get: for norms that stand behind what mixes tokens."""
    for path, module in model.named_modules():
        if type(module).__name__ in names or path.rpartition(".")[2] in names:
            module.forward = lambda x, *args, **kwargs: x


def wrong_cells(model: nn.Module, images: Tensor, slack: int = 0, **arguments: Any) -> list[str]:
    """Norms whose tokens do not lie where they are told: by gradients, from the output of the norm to the image.

    Of a few tokens of the first norms of each width and grid, the gradients to several images must be strongest in the
    cell of the token. And with kernels that look at the next token alone, to the right or below, the output of the norm
    must depend on that token and on its own.

    Args:
        model: A converted model, in evaluation mode.
        images: `(1, 3, H, W)`; others of the same shape go with it.
        slack: Cells by which the strongest may be beside the right one; 1 where patches overlap.
        arguments: Of the model, beyond the images.

    Returns:
        A sentence for each token that depends on others; empty where all is well.
    """
    wrong: list[str] = []
    # Random weights let a token of one image look far to one side behind convolutions; the mean of several does so
    # less. And with a single image, the gradients of this check pointed at other cells for EfficientFormer and
    # XCiT, with torch 2.12 on the CPU. The cause was not found.
    images = torch.cat([images, torch.randn(_NUM_IMAGES - 1, *images.shape[1:])]).requires_grad_()
    for name, norm, x, grid in _first_calls(model, images, arguments):
        height, width = grid
        tokens = x.flatten(1, -2)
        num_prefix = tokens.shape[1] - height * width
        for row, column in sorted({(0, 0), (height - 1, 0), (height // 2, width - 1), (height // 3, width // 4)}):
            token = tokens[:, num_prefix + row * width + column]
            (gradient,) = torch.autograd.grad((token * torch.randn_like(token)).sum(), images, retain_graph=True)
            energy = torch.nn.functional.adaptive_avg_pool2d(gradient.square().sum(1).mean(0, keepdim=True), grid)[0]
            found = divmod(int(energy.argmax()), width)
            if max(abs(found[0] - row), abs(found[1] - column)) > slack:
                wrong.append(f"{name} ({height} x {width}): token {(row, column)} comes from cell {found}")
        wrong += [f"{name} ({height} x {width}): {sentence}" for sentence in _wrong_neighbours(norm, x.detach(), grid)]
    return wrong


def _wrong_neighbours(norm: DTN, x: Tensor, grid: tuple[int, int]) -> list[str]:
    """Of a token in the middle, and kernels that look at the token to the right or below."""
    height, width = grid
    wrong: list[str] = []
    norm = copy.deepcopy(norm)
    norm.reset_parameters()  # some hosts start with weights of 0
    for down, right in ((0, 1), (1, 0)):
        row, column = height // 2 - down, width // 2 - right
        if row < 0 or column < 0:
            continue
        with torch.no_grad():
            norm.pos_proj.weight.copy_(
                10.0 * torch.tensor([-2.0 * right, -2.0 * down, -1.0]).expand(norm.num_groups, 3)
            )
            if norm.mean_norm_weight is not None:
                norm.mean_norm_weight.zero_()
        x = x.clone().requires_grad_()
        out = norm.forward(x, None if x.dim() == 4 else grid).flatten(1, -2)
        num_prefix = out.shape[1] - height * width
        token = out[0, num_prefix + row * width + column]
        (gradient,) = torch.autograd.grad(token @ torch.randn_like(token), x)
        strongest = gradient.flatten(1, -2)[0, num_prefix:].square().sum(-1).topk(2).indices
        found = sorted(divmod(int(index), width) for index in strongest)
        if found != sorted({(row, column), (row + down, column + right)}):
            wrong.append(f"{(row, column)} looks at {found} for {(row + down, column + right)}")
    return wrong


def _first_calls(
    model: nn.Module, images: Tensor, arguments: dict[str, Any]
) -> list[tuple[str, DTN, Tensor, tuple[int, int]]]:
    """Name, norm, input and grid of the first two norms of each width and grid."""
    calls: list[tuple[str, DTN, Tensor, tuple[int, int]]] = []

    def record(name: str) -> Any:
        def hook(module: DTN, args: Any, kwargs: Any, output: Tensor) -> None:
            x = args[0]
            height, width = x.shape[1:3] if x.dim() == 4 else kwargs["hw_shape"]
            alike = [one for one in calls if one[2].shape[-1] == x.shape[-1] and one[3] == (height, width)]
            if len(alike) < 2:
                calls.append((name, module, x, (height, width)))

        return hook

    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, DTN)]
    handles = [norm.register_forward_hook(record(name), with_kwargs=True) for name, norm in norms]
    model(images, **arguments)
    for handle in handles:
        handle.remove()
    return calls


def small_vit(depth: int = 3, **kwargs: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    settings = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": depth, "num_heads": 3, "num_classes": 5}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, **{**settings, **kwargs})
    return model


def move_off_start(model: nn.Module) -> None:
    """Give every parameter another value, so that no gate, kernel or branch is without effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
