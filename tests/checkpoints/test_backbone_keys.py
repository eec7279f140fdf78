"""The key maps as functions on dicts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dtn_det import convert_norm
from dtn_det.checkpoints.backbone_keys import (
    backbone_weights,
    detect_format,
    merging_to_unfold_order,
    pvt_official_to_mmdet,
    resize_grid,
    resize_tables,
    swin_official_to_mmdet,
    swin_timm_to_official,
    to_mmdet,
    without_class_token,
)
from dtn_det.errors import CheckpointError

ONE = torch.ones(1)


SWIN_NAME = "layers.0.blocks.0.attn.qkv.weight"


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "model._orig_mod.", "encoder_q."])
def test_what_stands_before_the_names_of_the_family_is_taken_off(prefix: str) -> None:
    state = {f"{prefix}{SWIN_NAME}": ONE, f"{prefix}norm0.weight": ONE, "fc.weight": ONE}
    found = backbone_weights({"state_dict": state}, "swin").state
    assert set(found) == {SWIN_NAME, "norm0.weight", *(["fc.weight"] if prefix in ("", "module.") else [])}


def test_prefix_of_the_users_choice() -> None:
    checkpoint = {"state_dict": {"teacher.backbone.a": ONE, "student.backbone.a": 2 * ONE, "student.neck.a": ONE}}
    assert backbone_weights(checkpoint, "swin", "student.backbone.").state == {"a": 2 * ONE}
    with pytest.raises(
        ValueError, match=r"expected keys that start with 'model\.', got student\.backbone\.a, student\."
    ):
        backbone_weights(checkpoint, "swin", "model.")


SWIN_KEYS = {
    "mmdet": ["stages.0.blocks.0.attn.w_msa.qkv.weight", "stages.0.downsample.norm.weight"],
    "official": ["layers.0.blocks.0.attn.qkv.weight", "layers.0.downsample.norm.weight"],
    "timm": ["layers.0.blocks.0.attn.qkv.weight", "layers.1.downsample.norm.weight"],
}
PVT_KEYS = {
    "mmdet": ["layers.0.0.projection.weight", "layers.0.1.1.attn.attn.in_proj_weight"],
    "official": ["patch_embed1.proj.weight", "block1.0.attn.q.weight"],
    "timm": ["patch_embed.proj.weight", "stages.0.blocks.0.attn.q.weight"],
}


@pytest.mark.parametrize(("family", "table"), [("swin", SWIN_KEYS), ("pvt", PVT_KEYS)])
def test_format_is_told_from_the_keys(family: str, table: dict[str, list[str]]) -> None:
    assert {name: detect_format(keys, family) for name, keys in table.items()} == {name: name for name in table}


@pytest.mark.parametrize(("family", "other", "table"), [("swin", "pvt", PVT_KEYS), ("pvt", "swin", SWIN_KEYS)])
def test_weights_of_the_other_family(family: str, other: str, table: dict[str, list[str]]) -> None:
    for name, keys in table.items():
        known = "official" if (other, name) == ("swin", "timm") else name
        with pytest.raises(ValueError, match=rf"expected a {family} checkpoint .*, got {known} {other}: "):
            detect_format(keys, family)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"got unknown names: key00, key01, .*, key07 and 4 more"):
        detect_format([f"key{i:02}" for i in range(12)], "swin")


def test_what_a_classifier_adds_is_dropped() -> None:
    extras = ["head.weight", "head.fc.bias", "norm.weight", "layers.0.blocks.1.attn_mask"]
    extras += ["layers.0.blocks.0.attn.relative_position_index"]
    kept = ["stages.0.blocks.0.attn.w_msa.qkv.weight"]
    swin = {key: torch.ones(4, 4) for key in [*SWIN_KEYS["timm"][:1], *extras]}
    assert list(to_mmdet(swin, "swin")) == kept
    pvt = {key: torch.ones(4, 4) for key in ["block1.0.attn.q.weight", "head.bias", "cls_token", "norm.weight"]}
    assert list(to_mmdet(pvt, "pvt")) == ["layers.0.1.0.attn.q.weight"], "a query without its keys stays recognisable"


def test_parameters_of_dtn_pass_through() -> None:
    own = ("mean_norm_weight", "var_norm_weight", "pos_proj.weight", "pos_proj.bias")
    swin = swin_official_to_mmdet({f"layers.1.blocks.0.norm1.{name}": ONE for name in own})
    assert set(swin) == {f"stages.1.blocks.0.norm1.{name}" for name in own}
    pvt = pvt_official_to_mmdet({"pos_embed1": torch.ones(1, 4, 1), **{f"block2.0.norm2.{name}": ONE for name in own}})
    assert set(pvt) == {"layers.0.1.0.pos_embed", *(f"layers.1.1.1.norm2.{name}" for name in own)}


def test_timm_downsamples_at_the_start_of_the_next_stage() -> None:
    state = swin_timm_to_official({"layers.1.downsample.norm.weight": ONE, "layers.1.blocks.0.norm1.weight": ONE})
    assert set(state) == {"layers.0.downsample.norm.weight", "layers.1.blocks.0.norm1.weight"}


@given(channels=st.integers(1, 5), rows=st.integers(1, 4))
def test_merging_order_is_that_of_unfold(channels: int, rows: int) -> None:
    """A reduction of the authors' concatenation equals the reordered reduction of the unfolded map."""
    x = torch.randn(1, channels, 4, 6)
    weight = torch.randn(rows, 4 * channels)
    quarters = [x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]]
    authors = torch.einsum("rc,bchw->brhw", weight, torch.cat(quarters, dim=1)).flatten(2)
    unfolded = nn.functional.unfold(x, 2, stride=2)
    torch.testing.assert_close(merging_to_unfold_order(weight) @ unfolded, authors)


@pytest.mark.parametrize("norm", ["dtn", "gn"])
def test_groups_of_a_merging_norm_would_mix_and_are_refused(norm: str) -> None:
    # DTN without its options, as in older checkpoints, tells its groups by its gates.
    timm = pytest.importorskip("timm")
    settings = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 0}

    def weights(groups: int) -> dict[str, Tensor]:
        model = timm.create_model("swin_tiny_patch4_window7_224", **settings)
        state = convert_norm(model, norm, layers=r"downsample\.norm", num_groups=groups).state_dict()
        return {key: value for key, value in state.items() if norm == "gn" or "_extra_state" not in key}

    with pytest.raises(CheckpointError, match=r"one group, got 4 groups in 'layers.0.downsample.norm': .*=1"):
        to_mmdet(weights(4), "swin")
    converted = to_mmdet(weights(1), "swin")
    assert "stages.0.downsample.norm.weight" in converted


def test_statistics_of_a_merging_norm_move_with_its_channels() -> None:
    names = ("weight", "bias", "running_mean", "running_var")
    values = torch.arange(8.0)
    state = {f"layers.0.downsample.norm.{name}": values for name in names}
    found = swin_official_to_mmdet({**state, "layers.0.downsample.norm.mean_weight": torch.arange(3.0)})
    assert found.pop("stages.0.downsample.norm.mean_weight").tolist() == [0, 1, 2]
    assert {tuple(value.tolist()) for value in found.values()} == {(0, 4, 2, 6, 1, 5, 3, 7)}


@pytest.mark.parametrize(("positions", "left"), [(50, 49), (49, 49), (3136, 3136), (48, 48), (2, 1), (1, 1)])
def test_class_token_is_the_one_position_too_many(positions: int, left: int) -> None:
    embedding = torch.arange(float(positions)).view(1, -1, 1)
    assert torch.equal(without_class_token(embedding), embedding[:, positions - left :])


def test_resizing_follows_the_grid() -> None:
    """A ramp stays one away from the border, in the direction in which it rises (torch's kernel bends it a little)."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    table = torch.stack([rows, columns], dim=-1).view(1, 64, 2)
    resized = resize_grid(table, (8, 8), (16, 24)).view(16, 24, 2)[4:-4, 6:-6]
    assert float((resized[1:, :, 0] - resized[:-1, :, 0] - 1 / 2).abs().max()) < 0.1
    assert float((resized[:, 1:, 1] - resized[:, :-1, 1] - 1 / 3).abs().max()) < 0.1
    assert float((resized[:, 1:, 0] - resized[:, :-1, 0]).abs().max()) < 1e-5
    assert resize_grid(table.half(), (8, 8), (4, 4)).dtype == torch.float16
    torch.testing.assert_close(resize_grid(table, (8, 8), (8, 8)), table)


def tables() -> tuple[dict[str, Tensor], dict[str, torch.Size]]:
    state = {"a.relative_position_bias_table": torch.randn(13 * 13, 3), "pos_embed": torch.randn(1, 49, 8)}
    return state, {"a.relative_position_bias_table": torch.Size((23 * 23, 3)), "pos_embed": torch.Size((1, 60, 8))}


def test_tables_get_the_size_of_the_model() -> None:
    state, shapes = tables()
    resized = resize_tables(state, shapes, {"pos_embed": (6, 10)})
    assert {key: value.shape for key, value in resized.items()} == shapes
    table = state["a.relative_position_bias_table"].T.view(1, 3, 13, 13)
    expected = nn.functional.interpolate(table, size=(23, 23), mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(resized["a.relative_position_bias_table"], expected)


def test_tables_that_cannot_be_resized_stay() -> None:
    state, shapes = tables()
    others = {
        "a.relative_position_bias_table": torch.randn(13 * 13, 4),  # other heads
        "pos_embed": torch.randn(1, 48, 8),  # not of a square grid
        "other": torch.randn(3),
    }
    kept = resize_tables(others, shapes, {"pos_embed": (6, 10)})
    assert all(kept[key] is value for key, value in others.items())
    same = resize_tables(state, {key: value.shape for key, value in state.items()}, {"pos_embed": (7, 7)})
    assert all(same[key] is value for key, value in state.items())
