"""What only the Swin backbone has: shifted windows and an absolute position embedding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dtn_det.checkpoints.backbone_keys import resize_grid

pytest.importorskip("mmdet")

from dtn_det.backbones.swin import attend_without_shift

Build = Callable[..., nn.Module]
SWIN = "DTNSwinTransformer"


@pytest.mark.parametrize("hw_shape", [(8, 8), (9, 13), (3, 20), (4, 4), (1, 1)])
def test_attention_without_shift_is_that_of_an_unshifted_block(build: Build, hw_shape: tuple[int, int]) -> None:
    attn = build(SWIN).stages[0].blocks[1].attn
    nn.init.normal_(attn.w_msa.relative_position_bias_table)
    assert attn.shift_size == 2
    x = torch.randn(2, hw_shape[0] * hw_shape[1], 8)
    ours = attend_without_shift(attn, x, hw_shape)
    assert attn.shift_size == 2
    shifted = attn(x, hw_shape)
    attn.shift_size = 0
    torch.testing.assert_close(ours, attn(x, hw_shape))
    assert not torch.allclose(ours, shifted)


@pytest.mark.parametrize(("size", "changed"), [((128, 128), [False] * 3 + [True]), ((16, 128), [True] * 4)])
def test_shift_of_small_maps_is_a_choice(build: Build, size: tuple[int, int], changed: list[bool]) -> None:
    """With windows of 4, a 128-pixel image fits one window in the last stage, and 16 pixels do from the first on."""
    arguments = {"dtn_stages": (), "depths": (2, 2, 2, 2)}
    shifting, fixed = build(SWIN, **arguments), build(SWIN, shift_small_maps=False, **arguments)
    for backbone in (shifting, fixed):
        torch.manual_seed(1)
        for p in backbone.parameters():
            nn.init.normal_(p, std=0.5)
    x = torch.randn(1, 3, *size)
    assert [not torch.allclose(a, b) for a, b in zip(shifting(x), fixed(x), strict=True)] == changed


def test_absolute_position_embedding_at_any_size(build: Build) -> None:
    arguments = {"use_abs_pos_embed": True, "pretrain_img_size": (64, 96), "dtn_stages": ()}
    backbone = build(SWIN, **arguments)
    parent = build("SwinTransformer", use_abs_pos_embed=True, pretrain_img_size=(64, 96))
    nn.init.normal_(backbone.absolute_pos_embed)
    parent.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for ours, theirs in zip(backbone(x), parent(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    # Another size: as a parent that was built for it and holds the resized embedding.
    other = build("SwinTransformer", use_abs_pos_embed=True, pretrain_img_size=(72, 40))
    resized = resize_grid(backbone.absolute_pos_embed, (16, 24), (18, 10))
    other.load_state_dict({**backbone.state_dict(), "absolute_pos_embed": resized})
    y = torch.randn(1, 3, 72, 40)
    for ours, theirs in zip(backbone(y), other(y), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_absolute_position_embedding_is_frozen_with_the_patches(build: Build) -> None:
    backbone = build(SWIN, use_abs_pos_embed=True, frozen_stages=0)
    assert not backbone.absolute_pos_embed.requires_grad
