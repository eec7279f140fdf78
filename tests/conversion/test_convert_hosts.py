"""Conversions of mmpretrain's and Hugging Face's models, and of models of sequences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conversion_models import move_off_start, norm_calls
from torch import Tensor, nn

from dtn_det import convert_norm, plan_norms
from dtn_det.layers.token_norm import TokenNorm

Build = Callable[[], nn.Module]


def _mmpretrain(name: str, **kwargs: Any) -> nn.Module:
    backbones = pytest.importorskip("mmpretrain.models.backbones")
    model: nn.Module = getattr(backbones, name)(**kwargs)
    model.eval()  # returns None for some
    return model


def _hugging_face(name: str, config: str, **kwargs: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    model: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**kwargs))
    return model.eval()


_VIT_ARCH = {"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48}
_T2T = {
    "img_size": 64,
    "embed_dims": 24,
    "num_layers": 2,
    "t2t_cfg": {"token_dims": 16, "use_performer": False},
    "layer_cfgs": {"num_heads": 3, "feedforward_channels": 48},
    "drop_path_rate": 0.0,
}
_SWIN_ARCH = {"embed_dims": 16, "depths": [1, 2], "num_heads": [1, 2]}

IMAGE_MODELS: dict[str, tuple[Build, dict[str, Any], dict[int, tuple[int, int]]]] = {
    "mmpretrain-vit": (lambda: _mmpretrain("VisionTransformer", arch=_VIT_ARCH), {}, {24: (4, 6)}),
    "mmpretrain-swin": (
        lambda: _mmpretrain("SwinTransformer", arch=_SWIN_ARCH, out_indices=(1,), pad_small_map=True),
        {},
        {16: (16, 24), 32: (8, 12)},
    ),
    "mmpretrain-t2t": (lambda: _mmpretrain("T2T_ViT", **_T2T), {}, {24: (4, 6)}),
    "transformers-vit": (
        lambda: _hugging_face(
            "ViTModel", "ViTConfig", hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48
        ),
        {"interpolate_pos_encoding": True},
        {24: (4, 6)},
    ),
    "transformers-swin": (
        lambda: _hugging_face("SwinModel", "SwinConfig", embed_dim=16, depths=[1, 1], num_heads=[1, 2]),
        {},
        {16: (16, 24), 32: (8, 12)},
    ),
    "transformers-segformer": (
        lambda: _hugging_face("SegformerModel", "SegformerConfig", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 20, 32]),
        {},
        {8: (16, 24), 16: (8, 12), 20: (4, 6)},
    ),
}


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_norms_see_the_grid_of_an_image_that_is_not_square(name: str) -> None:
    build, arguments, grids = IMAGE_MODELS[name]
    model = build()
    convert_norm(model)
    with norm_calls(model) as calls, torch.no_grad():
        model(torch.randn(1, 3, 64, 96), **arguments)
    assert {shape[-1]: told for _, shape, told in calls} == grids


def test_norms_of_the_tokens_to_token_module_stay() -> None:
    plan = plan_norms(_mmpretrain("T2T_ViT", **_T2T), layers="blocks")
    assert all(site.name.startswith("encoder.") for site in plan.replaced)
    assert any(name.startswith("tokens_to_token.") for name, _ in plan.kept)


def test_levit_of_mmpretrain() -> None:
    model = _mmpretrain("LeViT", arch="128s", img_size=224)
    convert_norm(model)
    model.train()
    out = model(torch.randn(2, 3, 224, 224))[-1]
    out.square().mean().backward()
    assert out.isfinite().all()


_SEQUENCES: dict[str, Build] = {
    "bert": lambda: _hugging_face(
        "BertModel", "BertConfig", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64,
    ),
    "bigbird": lambda: _hugging_face(
        "BigBirdModel", "BigBirdConfig", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, block_size=4, num_random_blocks=1, max_position_embeddings=128,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _SEQUENCES)
@pytest.mark.parametrize("norm", ["dtn", "bn", "in", "sn", "ln"])
def test_padding_changes_no_token_of_a_sequence(name: str, norm: str) -> None:
    options = {"init": "local"} if norm == "dtn" else {}
    model = convert_norm(_SEQUENCES[name](), norm, grid="sequence", **options).eval()
    move_off_start(model)
    # The last block of BigBird is global, hence padded in both.
    ids = torch.randint(1, 50, (2, 60))
    valid = torch.ones(2, 60, dtype=torch.long)
    valid[0, 56:] = valid[1, 40:] = 0
    for module in model.modules():
        if isinstance(module, TokenNorm):
            module.train()  # some have statistics of the batch
    longer, further = nn.functional.pad(ids, (0, 7)), nn.functional.pad(valid, (0, 7))
    with torch.no_grad():
        a = model(ids, attention_mask=valid).last_hidden_state
        b = model(longer, attention_mask=further).last_hidden_state[:, :60]
    torch.testing.assert_close(a[valid.bool()], b[valid.bool()], atol=1e-6, rtol=1e-5)


def test_a_mask_counts_in_the_statistics() -> None:
    model = convert_norm(_SEQUENCES["bert"](), grid="sequence", init="local").eval()
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module._forward_pre_hooks.pop(next(iter(module._forward_pre_hooks), -1), None)
    ids = torch.randint(1, 50, (1, 12))
    with torch.no_grad():
        assert not torch.allclose(
            model(ids, attention_mask=torch.tensor([[1] * 6 + [0] * 6])).last_hidden_state[0, :6],
            model(ids).last_hidden_state[0, :6],
        )


def test_masks_that_norms_cannot_read() -> None:
    model = convert_norm(_SEQUENCES["bert"](), grid="sequence")
    ids = torch.randint(1, 50, (2, 8))
    with pytest.raises(ValueError, match=r"expected attention_mask of shape \(B, L\), .* got \(2, 8, 8\)"):
        model(ids, attention_mask=torch.ones(2, 8, 8))
    chunked = _hugging_face(
        "ReformerModel", "ReformerConfig", vocab_size=50, hidden_size=32, attention_head_size=8, num_attention_heads=4,
        feed_forward_size=32, axial_pos_embds=False, max_position_embeddings=64, attn_layers=["local"],
        local_attn_chunk_length=4, chunk_size_feed_forward=4, is_decoder=False,
    )  # fmt: skip
    convert_norm(chunked, grid="sequence")
    with pytest.raises(ValueError, match="turn off what splits sequences"):
        chunked(ids, attention_mask=torch.ones(2, 8))


def test_reformer_trains() -> None:
    model = _hugging_face(
        "ReformerModel", "ReformerConfig", vocab_size=50, hidden_size=32, attention_head_size=8, num_attention_heads=4,
        feed_forward_size=32, axial_pos_embds=False, max_position_embeddings=64, attn_layers=["local", "lsh"],
        local_attn_chunk_length=4, lsh_attn_chunk_length=4, num_buckets=4, is_decoder=False,
    )  # fmt: skip
    convert_norm(model, grid="sequence", init="local").train()
    out = model(torch.randint(1, 50, (2, 16)), attention_mask=torch.ones(2, 16, dtype=torch.long)).last_hidden_state
    out.square().sum().backward()
    gradient: Tensor | None = model.get_parameter("encoder.layers.0.attention.layer_norm.pos_proj.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_the_mask_is_found_behind_a_wrapper(caplog: pytest.LogCaptureFixture) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = _SEQUENCES["bert"]()

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.encoder(tokens, attention_mask=mask).last_hidden_state
            return out

    model = convert_norm(Wrapper(), grid="sequence", init="local").eval()
    ids = torch.randint(1, 50, (1, 12))
    mask = torch.tensor([[1] * 8 + [0] * 4])
    other = ids.clone()
    other[0, 8:] = 7
    with torch.no_grad():
        torch.testing.assert_close(model(ids, mask)[:, :8], model(other, mask)[:, :8], atol=1e-6, rtol=1e-5)
    assert "padded tokens count" not in caplog.text
    block = nn.TransformerEncoderLayer(8, 2, 16)
    convert_norm(nn.Sequential(block), grid="sequence", layers="norm")
    assert "Sequential takes no attention_mask, so its padded tokens count" in caplog.text


@pytest.mark.parametrize(
    ("name", "config", "settings"),
    [
        ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}),
        ("BertModel", "BertConfig", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                                     "intermediate_size": 16, "vocab_size": 20, "is_decoder": True}),
        ("BartModel", "BartConfig", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20,
                                     "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
    ],
)  # fmt: skip
def test_models_that_must_not_see_the_future_are_refused(name: str, config: str, settings: dict[str, Any]) -> None:
    model = _hugging_face(name, config, **settings)
    with pytest.raises(ValueError, match=rf"expected an encoder, got {name} with attention that must not see later"):
        convert_norm(model, grid="sequence")
    convert_norm(model, "rmsnorm", grid="sequence", layers="blocks")
