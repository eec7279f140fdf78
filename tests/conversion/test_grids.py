"""Grids are those of the current forward pass of the host that made the tokens, or the norm refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_models import move_off_start, norm_calls, small_vit
from torch import Tensor, nn

from dtn_det import convert_norm, plan_norms
from dtn_det.conversion.hosts.traits import ExtraTokens, extra_tokens
from dtn_det.errors import InputError
from dtn_det.layers import DTN

timm = pytest.importorskip("timm")

_SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3}
_STAGES = {"depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


def _grids(model: nn.Module, x: Tensor | dict[str, Tensor]) -> dict[int, set[Any]]:
    """By width, the grids that norms were told or got as maps."""
    found: dict[int, set[Any]] = {}
    with norm_calls(model) as calls, torch.no_grad():
        model(x)
    for _, shape, told in calls:
        found.setdefault(shape[-1], set()).add(told if len(shape) == 3 else shape[1:3])
    return found


class _Block(nn.Module):
    """A block that normalises tokens as they come."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class _Host(nn.Module):
    """Images or tokens through one block."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList([_Block()])

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        if x.dim() == 4:
            x = self.embed(x).flatten(2).transpose(1, 2)
        if fail:
            raise RuntimeError("failed on purpose")
        return self.tokens(x)

    def tokens(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks[0](x)
        return out


def test_a_naflex_vit_is_told_the_grid_of_an_image_and_that_of_patches_afterwards() -> None:
    model = timm.create_model("naflexvit_base_patch16_gap", **_SMALL)
    model = convert_norm(model, layers="blocks").eval()
    image = torch.randn(1, 3, 128, 192)
    row, column = torch.meshgrid(torch.arange(12), torch.arange(8), indexing="ij")
    patches = {
        "patches": torch.randn(1, 96, 768),
        "patch_coord": torch.stack([row.flatten(), column.flatten()], -1)[None],
        "patch_valid": torch.ones(1, 96, dtype=torch.bool),
    }
    assert _grids(model, image) == {24: {(8, 12)}}
    assert _grids(model, patches) == {24: {(12, 8)}}
    assert _grids(model, torch.randn(1, 3, 192, 128)) == {24: {(12, 8)}}


@pytest.mark.parametrize("part", ["whole", "part"])
def test_no_grid_outlives_its_pass(part: str) -> None:
    model = convert_norm(_Host(), layers="blocks")
    call = model if part == "whole" else model.forward
    call(torch.randn(1, 3, 8, 24))
    with pytest.raises(ValueError, match=r"in this forward pass, got \(1, 12, 8\) and nothing else"):
        call(torch.randn(1, 12, 8))
    assert _grids(model, torch.randn(1, 3, 24, 8)) == {8: {(6, 2)}}


def test_no_grid_outlives_a_pass_that_failed() -> None:
    model = convert_norm(_Host(), layers="blocks")
    with pytest.raises(RuntimeError, match="on purpose"):
        model(torch.randn(1, 3, 8, 24), fail=True)
    for call in (model.forward, model):
        with pytest.raises(ValueError, match=r"expected to see the grid of the tokens of 'blocks.0.norm'"):
            call(torch.randn(1, 12, 8))


def test_a_whole_model_under_checkpointing_is_told_its_own_grid() -> None:
    model = convert_norm(small_vit(depth=2), layers="blocks", init="local")
    move_off_start(model)
    images = [torch.randn(1, 3, 16, 32), torch.randn(1, 3, 32, 16)]
    expected = []
    for image in images:
        model.zero_grad()
        model(image).square().sum().backward()
        expected.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for reentrant in (False, True):
        outs = [
            torch.utils.checkpoint.checkpoint(model, image.clone().requires_grad_(), use_reentrant=reentrant)
            for image in images
        ]
        for out, gradients in zip(outs, expected, strict=True):
            model.zero_grad()
            out.square().sum().backward()
            for name, p in model.named_parameters():
                torch.testing.assert_close(p.grad, gradients[name])


def test_features_of_a_part_of_a_model() -> None:
    model = convert_norm(small_vit(depth=2), layers="blocks").eval()
    with norm_calls(model) as calls, torch.no_grad():
        for size in ((16, 32), (16, 32), (32, 16)):
            model.forward_features(torch.randn(1, 3, *size))  # type: ignore[operator]
    assert [told for _, _, told in calls] == [(4, 8)] * 8 + [(8, 4)] * 4


def test_tokens_of_a_batch_in_columns_are_refused() -> None:
    class Columns(_Host):
        def tokens(self, x: Tensor) -> Tensor:
            return super().tokens(x.transpose(0, 1))

    model = convert_norm(Columns(), layers="blocks")
    with pytest.raises(ValueError, match=r"as \(B, N, C\) with B = 12, .*, got \(6, 12, 8\)"):
        model(torch.randn(12, 3, 8, 12))


@pytest.mark.parametrize("size", [(64, 160), (160, 64), (64, 64)])
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "davit_tiny"])
def test_maps_with_a_side_as_long_as_their_width(name: str, size: tuple[int, int]) -> None:
    own = {"embed_dims": (16, 32, 64, 128)} if name == "davit_tiny" else {"embed_dim": 16, "img_size": size}
    settings = {**_STAGES, **own}
    model = convert_norm(timm.create_model(name, num_classes=2, **settings), layers="blocks").eval()
    height, width = size
    expected = {16 * 2**i: {(height // 4 // 2**i, width // 4 // 2**i)} for i in range(4)}
    assert _grids(model, torch.randn(1, 3, height, width)) == expected


def test_a_map_that_can_be_read_in_two_ways_is_refused_and_a_given_grid_comes_first() -> None:
    class Flat(_Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1, 2))

    x = torch.randn(1, 8, 4, 8)
    with pytest.raises(
        ValueError,
        match=r"expected to tell \(B, H, W, C\) from \(B, C, H, W\) at '0.norm', .* a grid of 8 x 4 or of 4 x 8: pass",
    ):
        convert_norm(nn.Sequential(Flat()), layers="blocks")(x)
    assert convert_norm(nn.Sequential(Flat()), layers="blocks", grid=(8, 4))(x).shape == (1, 32, 8)


@pytest.mark.parametrize(
    ("name", "grid"),
    [("eva02_base_patch14_224", (16, 16)), ("eva02_large_patch14_224", (16, 16)), ("beit3_base_patch16_224", (14, 14))],
)
def test_a_norm_inside_of_the_mlp_is_left_alone(name: str, grid: tuple[int, int]) -> None:
    model = timm.create_model(name, num_classes=2, **_SMALL).eval()
    kept = dict(plan_norms(model, layers="blocks").kept)
    assert kept["blocks.0.mlp.norm"] == "normalises hidden channels of its block"
    convert_norm(model, layers="blocks")
    assert _grids(model, torch.randn(1, 3, 224, 224)) == {24: {grid}}


def test_a_norm_inside_of_the_mlp_gets_the_grid_of_its_block_where_it_is_chosen() -> None:
    model = timm.create_model("eva02_base_patch14_224", num_classes=2, **_SMALL).eval()
    convert_norm(model, layers=r"blocks\.\d\.mlp\.norm", num_groups=1)
    assert list(_grids(model, torch.randn(1, 3, 224, 224)).values()) == [{(16, 16)}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_tiny_patch16_224", ExtraTokens(1)),
        ("vit_small_patch14_reg4_dinov2", ExtraTokens(5)),
        ("vit_base_patch16_siglip_224", ExtraTokens(0)),
        ("deit_tiny_distilled_patch16_224", ExtraTokens(2)),
        ("pit_ti_distilled_224", ExtraTokens(2)),
        ("eva02_tiny_patch14_224", ExtraTokens(1)),
        ("swin_tiny_patch4_window7_224", ExtraTokens(0)),
        ("pvt_v2_b0", ExtraTokens(0)),
    ],
)
def test_extra_tokens_are_those_that_a_model_has(name: str, expected: ExtraTokens) -> None:
    with torch.device("meta"):
        assert extra_tokens(timm.create_model(name)) == expected


def test_tokens_that_no_one_speaks_of_are_no_prefix() -> None:
    class Padded(_Host):
        def tokens(self, x: Tensor) -> Tensor:
            return super().tokens(torch.cat([x[:, :1], x], 1))

    model = convert_norm(Padded(), layers="blocks")
    with pytest.raises(ValueError, match=r"expected the tokens of 'blocks.0.norm' to be a grid of 2 x 6, got 13: DTN"):
        model(torch.randn(1, 3, 8, 24))


@pytest.mark.parametrize(
    ("name", "deed"),
    [
        ("mobilevit_xxs", "MobileVitBlock of ByobNet, which unfolds its maps into patches"),
        ("mvitv2_tiny", "MultiScaleVit, which pools its tokens inside its blocks"),
        ("csatv2", "CSATv2, which pools its tokens inside its blocks"),
        ("hiera_tiny_224", "Hiera, which sorts its tokens by windows"),
        ("nest_tiny", "Nest, which sorts its tokens by windows"),
        ("tnt_s_patch16_224", "TNT, which has tokens within tokens"),
    ],
)
def test_models_that_rearrange_their_tokens_are_refused(name: str, deed: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    reason = f"expected tokens in the order of their grid, got {deed}: DTN has no grid there"
    with pytest.raises(InputError, match=reason) as error:
        convert_norm(model)
    assert not any(isinstance(module, DTN) for module in model.modules())
    assert str(error.value).endswith("choose another model or a norm within tokens (ln, gn, rmsnorm, scalenorm, dyt)")
    assert plan_norms(model, "ln", layers="blocks").replaced


def test_a_decoder_keeps_its_norms() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, 4)
            self.encoder = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)])
            self.decoder = nn.ModuleList([nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)])

        def forward(self, x: Tensor) -> Tensor:
            memory = self.encoder[0](self.embed(x).flatten(2).transpose(1, 2))
            out: Tensor = self.decoder[0](memory.new_ones(len(x), 12, 8), memory)
            return out

    model = convert_norm(Detector(), layers="blocks").train()
    assert [name for name, module in model.named_modules() if isinstance(module, DTN)] == [
        "encoder.0.norm1",
        "encoder.0.norm2",
    ]
    assert dict(plan_norms(Detector(), layers="blocks").kept)["decoder.0.norm1"].startswith("is in a decoder")
    assert _grids(model, torch.randn(1, 3, 12, 16)) == {8: {(3, 4)}}
