"""Options of layers in state dicts: they travel with the weights, and old files load as before."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dtn_det.layers import (
    DTN,
    LocalitySelfAttention,
    ShiftedPatchTokenization,
    TokenGroupNorm,
    TokenInstanceNorm,
    build_token_norm,
)
from dtn_det.layers.options import EXTRA_STATE, pack_options, unpack_options

X = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))


def trained(**options: object) -> DTN:
    torch.manual_seed(1)
    norm = DTN(8, 2, **options)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    return norm


def test_options_are_text_in_a_tensor() -> None:
    state = DTN(8, 2, eps=1e-6).get_extra_state()
    assert (state.dtype, state.device.type, state.dim()) == (torch.uint8, "cpu", 1)
    assert unpack_options(state) == {"norm": "DTN", "eps": 1e-6, "head_rms": True, "unbiased": True}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64):
        assert unpack_options(state.to(dtype)) == unpack_options(state)
    for wrong in (None, b"{}", torch.zeros(0), torch.rand(5), torch.zeros(3, 3), pack_options({"eps": 1})):
        assert unpack_options(wrong) is None
    with torch.device("meta"):
        assert DTN(8).get_extra_state().device.type == "cpu"


def test_a_norm_built_with_other_options_takes_those_of_the_weights() -> None:
    """The example of two converted models: the logits were up to 0.065 apart without a word."""
    norm = trained()
    other = DTN(8, 2, init="layernorm")
    text = (
        "the state dict is of head_rms=True, unbiased=True, the model was built with head_rms=False, unbiased=False: "
        "the model takes those of the state dict"
    )
    with pytest.warns(UserWarning, match=text):
        other.load_state_dict(norm.state_dict())
    assert torch.equal(other(X), norm(X))
    kept = DTN(8, 2, init="layernorm")
    kept.keeps_options = True
    with pytest.warns(UserWarning, match="the model keeps its own, which gives other outputs"):
        kept.load_state_dict(norm.state_dict())
    assert not kept.head_rms
    assert not torch.equal(kept(X), norm(X))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gn", {"over": "image"}),
        ("gn", {"include_prefix": False}),
        ("in", {"eps": 1e-3}),
        ("powernorm", {"layer_scale": False}),
        ("rmsnorm", {"eps": 1e-2}),
        ("ln", {"eps": 1e-2}),
    ],
)
def test_options_of_other_norms(name: str, options: dict) -> None:
    norm, other = build_token_norm(name, 8, 2, **options).eval(), build_token_norm(name, 8, 2).eval()
    with pytest.warns(UserWarning, match="the model takes those of the state dict"):
        other.load_state_dict(norm.state_dict())
    assert torch.equal(other(X, (4, 4)), norm(X, (4, 4)))


def test_groups_that_no_weight_shows() -> None:
    norm, other = TokenGroupNorm(8, 4), TokenGroupNorm(8, 2)
    with pytest.warns(UserWarning, match="is of num_groups=4, the model was built with num_groups=2"):
        other.load_state_dict(norm.state_dict())
    assert torch.equal(other(X), norm(X))


def test_weights_of_another_norm_are_told() -> None:
    with pytest.warns(UserWarning, match=r"norm='TokenGroupNorm'.* go from one norm into another"):
        TokenInstanceNorm(8).load_state_dict(TokenGroupNorm(8, 2).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*_extra_state"):
        nn.LayerNorm(8).load_state_dict(TokenGroupNorm(8, 2).state_dict())


def test_what_cannot_be_read_is_told() -> None:
    with pytest.warns(UserWarning, match="expected the options of DTN in the state dict, got something else"):
        DTN(8, 2).load_state_dict({**DTN(8, 2).state_dict(), EXTRA_STATE: torch.ones(3)})


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith(EXTRA_STATE)}


@pytest.mark.filterwarnings("error")
def test_old_files_load_without_a_word(tmp_path: Path) -> None:
    model = nn.Sequential(trained(init="layernorm"), nn.Linear(8, 8))
    old = without(model.state_dict())
    again = nn.Sequential(DTN(8, 2, init="layernorm"), nn.Linear(8, 8))
    assert not any(again.load_state_dict(old, strict=True))
    assert again.load_state_dict(old, strict=False).missing_keys == []
    again.load_state_dict(old, assign=True)
    assert torch.equal(again(X), model(X))
    engine = pytest.importorskip("mmengine.runner.checkpoint")
    engine.load_state_dict(again, old, strict=True)


@pytest.mark.filterwarnings("error")
def test_they_pass_through_files_and_libraries(tmp_path: Path) -> None:
    norm = trained(eps=1e-6)
    buffer = io.BytesIO()
    torch.save(norm.state_dict(), buffer)
    buffer.seek(0)
    save_file(norm.state_dict(), tmp_path / "a.safetensors")
    for state in (torch.load(buffer, weights_only=True), load_file(tmp_path / "a.safetensors")):
        again = DTN(8, 2, eps=1e-6)
        assert not any(again.load_state_dict(state, strict=True))
        assert torch.equal(again(X), norm(X))
    assert copy.deepcopy(norm).get_extra_state().equal(norm.get_extra_state())
    assert unpack_options(norm.half().state_dict()[EXTRA_STATE])["eps"] == 1e-6
    assert len(list(norm.parameters())) == 6
    assert not list(norm.buffers())


@pytest.mark.filterwarnings("error")
def test_mmengine_saves_and_averages_them() -> None:
    engine = pytest.importorskip("mmengine.runner.checkpoint")
    averages = pytest.importorskip("mmengine.model")
    model = nn.Sequential(trained(), nn.BatchNorm1d(16))
    state = engine.weights_to_cpu(engine.get_state_dict(model))
    assert unpack_options(state["0._extra_state"]) == model[0].options()
    for update_buffers in (False, True):
        average = averages.ExponentialMovingAverage(model, momentum=0.3, update_buffers=update_buffers)
        for _ in range(3):
            average.update_parameters(model)
        assert torch.equal(average.state_dict()["module.0._extra_state"], state["0._extra_state"])
        average.load_state_dict(average.state_dict(), strict=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("use_buffers", [False, True])
def test_other_averages_leave_them_alone(use_buffers: bool) -> None:
    model = trained()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    for _ in range(3):
        average.update_parameters(model)
    assert torch.equal(average.state_dict()["module._extra_state"], model.get_extra_state())
    utils = pytest.importorskip("timm.utils")
    for kind in (utils.ModelEmaV2, utils.ModelEmaV3):
        average = kind(model, decay=0.9)
        for _ in range(3):
            average.update(model) if kind is utils.ModelEmaV2 else average.update(model, step=1)
        assert torch.equal(average.module.get_extra_state(), model.get_extra_state())


def test_a_compiled_model_follows_the_options_that_it_loads() -> None:
    norm = trained()
    other = DTN(8, 2, init="layernorm")
    compiled = torch.compile(other, backend="eager")
    compiled(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled.load_state_dict({f"_orig_mod.{name}": value for name, value in norm.state_dict().items()})
    torch.testing.assert_close(compiled(X), norm(X))


@pytest.mark.parametrize(
    ("kind", "arguments", "x", "name", "value", "own"),
    [
        (ShiftedPatchTokenization, (3, 8, 4), torch.arange(96.0).sin().reshape(1, 3, 4, 8), "shift", 1, 2),
        (LocalitySelfAttention, (8, 2), X, "mask_diagonal", False, True),
    ],
    ids=["spt", "lsa"],
)
def test_other_layers_carry_their_options_too(
    kind: type[nn.Module], arguments: tuple[int, ...], x: Tensor, name: str, value: object, own: object
) -> None:
    def output(layer: nn.Module) -> Tensor:
        out = layer(x)
        return out[0] if isinstance(out, tuple) else out

    trained_layer, plain = kind(*arguments, **{name: value}), kind(*arguments)
    assert unpack_options(trained_layer.state_dict()[EXTRA_STATE]) == {"layer": kind.__name__, name: value}
    said = f"the state dict is of {name}={value!r}, the model was built with {name}={own!r}: the model takes those"
    with pytest.warns(UserWarning, match=said):
        plain.load_state_dict(trained_layer.state_dict())
    torch.testing.assert_close(output(plain), output(trained_layer), rtol=0, atol=0)
    # A file that was written before options were stored.
    old = {key: tensor for key, tensor in trained_layer.state_dict().items() if key != EXTRA_STATE}
    again = kind(*arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.load_state_dict(old)
    assert getattr(again, name) == own
    assert not torch.equal(output(again), output(trained_layer))
