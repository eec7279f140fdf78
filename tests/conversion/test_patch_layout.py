"""Batches of patches (NaFlex): one grid with padding behind it, or a refusal; a given grid contradicts nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_models import move_off_start
from torch import Tensor, nn

from dtn_det import convert_norm
from dtn_det.conversion.patch_layout import read_layout
from dtn_det.layers import DTN

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

Grid = tuple[int, int]


def _coordinates(grids: tuple[Grid, ...], length: int) -> tuple[Tensor, Tensor]:
    coordinates, valid = torch.zeros(len(grids), length, 2, dtype=torch.long), torch.zeros(len(grids), length).bool()
    for index, (height, width) in enumerate(grids):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        coordinates[index, : height * width] = torch.stack([rows, columns], -1).reshape(-1, 2)
        valid[index, : height * width] = True
    return coordinates, valid


def _naflex(registers: int = 0, **options: Any) -> nn.Module:
    from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

    settings = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "pos_embed_grid_size": (4, 4)}
    cfg = NaFlexVitCfg(**settings, class_token=False, reg_tokens=registers)
    return _converted(NaFlexVit(cfg, num_classes=5), **options)


def _siglip(**options: Any) -> nn.Module:
    settings = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    config = transformers.Siglip2VisionConfig(**settings, num_patches=16, patch_size=8)
    return _converted(transformers.Siglip2VisionModel(config), **options)


def _converted(model: nn.Module, **options: Any) -> nn.Module:
    model = convert_norm(model.eval(), layers="blocks", init="local", **options)
    move_off_start(model)
    return model


def _call(model: nn.Module, grids: tuple[Grid, ...], length: int) -> Any:
    coordinates, valid = _coordinates(grids, length)
    patches = torch.randn(len(grids), length, 192)
    if "siglip" in type(model).__name__.lower():
        shapes = torch.tensor(grids)
        return model(pixel_values=patches, pixel_attention_mask=valid.long(), spatial_shapes=shapes)
    return model({"patches": patches, "patch_coord": coordinates, "patch_valid": valid})


def _first_call(model: nn.Module, grids: tuple[Grid, ...], length: int) -> tuple[DTN, Tensor, Tensor]:
    """The first converted norm, what its block hands to it and what it gets back."""
    norm = next(module for module in model.modules() if isinstance(module, DTN))
    seen: list[Tensor] = []
    handles = [
        norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=True),
        norm.register_forward_hook(lambda module, args, output: seen.append(output)),
    ]
    with torch.no_grad():
        _call(model, grids, length)
    for handle in handles:
        handle.remove()
    return norm, seen[0], seen[1]


@pytest.mark.parametrize("options", [{}, {"grid": (2, 6)}, {"grid": lambda number: (2, 6)}])
@pytest.mark.parametrize("length", [12, 16])
@pytest.mark.parametrize(("build", "prefix"), [(_siglip, 0), (_naflex, 0), (lambda **given: _naflex(3, **given), 3)])
def test_images_of_one_grid_are_normalised_without_their_padding(
    build: Any, prefix: int, length: int, options: dict[str, Any]
) -> None:
    norm, x, y = _first_call(build(**options), ((2, 6), (2, 6)), length)
    end = prefix + 12
    assert x.shape[1] == prefix + length
    bare = DTN(24, 3, init="local", eps=norm.eps)  # type: ignore[arg-type]
    bare.load_state_dict(norm.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(y[:, prefix:end], bare(x[:, prefix:end], (2, 6)))
        others = torch.cat([x[:, :prefix], x[:, end:]], 1)
        expected = bare(torch.cat([others, x[:, :1]], 1), (1, 1))[:, :-1]
        torch.testing.assert_close(torch.cat([y[:, :prefix], y[:, end:]], 1), expected)


@pytest.mark.parametrize("options", [{}, {"grid": (4, 4)}, {"grid": lambda number: (4, 4)}])
@pytest.mark.parametrize("build", [_siglip, _naflex])
def test_a_padded_batch_of_different_grids_is_refused_and_the_advice_works(build: Any, options: dict[str, Any]) -> None:
    model = build(**options)
    with pytest.raises(
        ValueError,
        match=r"got a batch of images of different grids, padded \(2 x 6, 4 x 4 by .*: batch images of one grid",
    ):
        _call(model, ((2, 6), (4, 4)), 16)
    _call(model, ((4, 4), (4, 4)), 16)
    if not options:
        _call(model, ((2, 6),), 16)


@pytest.mark.parametrize("build", [_siglip, _naflex])
@pytest.mark.parametrize(("grids", "length"), [(((2, 8),), 16), (((2, 6),), 16), (((2, 6),), 12)])
def test_a_given_grid_that_the_host_contradicts_is_refused_and_the_advice_works(
    build: Any, grids: tuple[Grid, ...], length: int
) -> None:
    with pytest.raises(
        ValueError, match=r"expected images of the grid 4 x 4 that convert_norm was given.* without grid="
    ):
        _call(build(grid=(4, 4)), grids, length)
    _call(build(), grids, length)


def test_a_layout_is_that_of_its_pass() -> None:
    model = _naflex()
    coordinates, valid = _coordinates(((2, 6),), 16)
    with pytest.raises(ValueError, match="different grids, padded"):
        _call(model, ((2, 6), (4, 4)), 16)
    _call(model, ((2, 6),), 16)
    images = torch.randn(2, 3, 16, 48)
    patches = torch.randn(1, 16, 192)
    for _ in range(2):
        assert model(images).shape == (2, 5)
        model.forward_features(patches, patch_coord=coordinates, patch_valid=valid)  # type: ignore[operator]
        model.forward_features(images)  # type: ignore[operator]


@pytest.mark.parametrize("options", [{}, {"grid": (2, 6)}])
def test_padding_is_known_where_activations_are_computed_again(options: dict[str, Any]) -> None:
    gradients = []
    coordinates, valid = _coordinates(((2, 6), (2, 6)), 16)
    patches = torch.randn(2, 16, 192)
    torch.manual_seed(0)
    model = _naflex(**options).train()
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)  # type: ignore[operator]
        model.zero_grad()
        model(patches, patch_coord=coordinates, patch_valid=valid).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_what_hosts_say_of_their_patches() -> None:
    coordinates, valid = _coordinates(((2, 6), (2, 6)), 16)
    layout = read_layout({"patch_coord": coordinates, "patch_valid": valid})
    assert layout is not None
    assert (layout.grid, layout.batch, layout.problem) == ((2, 6), 2, "")
    by_columns = coordinates.clone()
    by_columns[:, :12] = coordinates[:, torch.arange(12).reshape(2, 6).T.flatten()]
    cells = torch.ones(2, 4, 6, dtype=torch.bool)
    assert read_layout({"patch_attention_mask": cells}) is None
    assert read_layout({"patch_valid": torch.ones(2, 16)}) is None
    assert read_layout({"x": torch.randn(1, 3, 4, 4)}) is None
    cells[0, 3:] = False
    different = cells.clone()
    cells[1, 3:] = False
    for told, problem in (
        ({"patch_coord": by_columns, "patch_valid": valid}, "patches of 2 x 6 that do not come row by row"),
        (
            {"spatial_shapes": [(2, 6)], "pixel_attention_mask": valid[:1].flip(1)},
            "tokens that are not 2 x 6 patches and",
        ),
        ({"spatial_shapes": [(2, 6), (3, 4)]}, "a batch of images of different grids, padded (2 x 6, 3 x 4 by spatial"),
        ({"patch_valid": valid}, "12 patches an image and padding, and no grid, by patch_valid"),
        (
            {"patch_attention_mask": different},
            "a batch of images of different grids, padded (3 x 6, 4 x 6 by patch_att",
        ),
        ({"patch_attention_mask": cells}, "images of 3 x 6 patches padded to 4 x 6, by patch_attention_mask"),
    ):
        layout = read_layout(told)
        assert layout is not None
        assert layout.grid is None
        assert layout.problem.startswith(problem)
