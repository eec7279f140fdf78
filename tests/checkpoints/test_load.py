"""Which weights are taken, what is said of it, and what does not fit."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.checkpoints.fit import compare_weights
from dtn_det.checkpoints.load import fit_weights, load_weights
from dtn_det.checkpoints.state_dict import choose_weights
from dtn_det.checkpoints.trained_config import config_value, trained_options
from dtn_det.checkpoints.unwrap import unwrap_names
from dtn_det.checkpoints.weights import find_weights
from dtn_det.datasets.remarks import tell
from dtn_det.errors import CheckpointError
from dtn_det.layers import DTN, ShiftedPatchTokenization, build_token_norm
from dtn_det.layers.options import EXTRA_STATE
from dtn_det.robustness.store.manifest import hash_weights
from dtn_det.training.run import read_by_package

ONE, TWO = torch.ones(1), 2 * torch.ones(1)


def net(norm: str = "dtn", blocks: int = 2, classes: int = 5, **options: Any) -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(8) if norm == "LN" else build_token_norm(norm, 8, 2, **options)
            self.mlp = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.mlp(self.norm1(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
            self.head = nn.Linear(8, classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x).mean(1))

    torch.manual_seed(blocks)
    return Net()


def save(content: Any, folder: Path) -> str:
    torch.save(content, folder / "a.pth")
    return str(folder / "a.pth")


def old(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.endswith(EXTRA_STATE)}


@pytest.mark.parametrize(
    ("content", "fact", "remark"),
    [
        (lambda s: s, {}, ""),
        (lambda s: {"state_dict": s}, {}, ""),
        (
            lambda s: {"state_dict": s, "state_dict_ema": s},
            {"weights": "ema (state_dict_ema)"},
            "1 state dict of two was taken, the average of the weights (EMA) under 'state_dict_ema'; --weights plain "
            "takes that under 'state_dict'",
        ),
        (
            lambda s: {"model_ema": s},
            {"weights": "ema (model_ema)"},
            "1 state dict is there, the average of the weights (EMA) under 'model_ema'",
        ),
        (
            lambda s: {"state_dict": s, "ema_state_dict": {"steps": ONE, **{f"module.{k}": v for k, v in s.items()}}},
            {"weights": "ema (state_dict)"},
            "1 state dict of two was taken, the average of the weights (EMA) under 'state_dict'; --weights plain takes "
            "that under 'ema_state_dict'",
        ),
        (
            lambda s: {f"{p}.{k}": v for p in ("model", "model_ema") for k, v in s.items()},
            {"weights": "ema (model_ema)"},
            "1 state dict of two was taken, the average of the weights (EMA) under 'model_ema.'; --weights plain takes "
            "that under 'model.'",
        ),
        (
            lambda s: {"criterion.weight": ONE, **{f"model.{k}": v for k, v in s.items()}},
            {},
            "1 weight that the model does not have, of training or of what is around it, was left out "
            "(criterion.weight)",
        ),
    ],
)
def test_what_was_taken_is_said_and_kept(content: Any, fact: dict, remark: str, tmp_path: Path) -> None:
    path = save(content(net().state_dict()), tmp_path)
    loaded = load_weights(net(), path)
    assert loaded.facts == fact
    lines: list[str] = []
    tell(loaded.remarks, lines.append)
    assert lines == ([f"note: {path}: {remark}"] if remark else [])


def test_the_average_of_another_library_is_no_swap() -> None:
    """Only MMEngine's hook, which counts steps there, puts the average under state_dict."""
    content = {"state_dict": {"a": ONE}, "ema_state_dict": {"a": TWO}}
    assert choose_weights(content).state == {"a": TWO}
    assert choose_weights(content, "plain").state == {"a": ONE}
    with pytest.raises(CheckpointError, match=r"got only their average, under 'state_dict_ema': take it"):
        choose_weights({"state_dict_ema": {"a": ONE}}, "plain")


STATE = {"a.weight": ONE, "b.weight": ONE}
MEAN = {"a.weight": TWO, "b.weight": TWO}


@pytest.mark.parametrize(
    ("content", "place", "other"),
    [
        ({"params": STATE, "params_ema": MEAN}, "params_ema", "params"),
        ({"model": STATE, "swa_model": {**MEAN, "n_averaged": ONE}}, "swa_model", "model"),
        ({"state_dict": STATE, "callbacks": {"EMA": {"ema_weights": MEAN}}}, "callbacks.EMA.ema_weights", "state_dict"),
        ({"state_dict": MEAN, "current_model_state": STATE}, "state_dict", "current_model_state"),
        ({"checkpoint": {"model": STATE, "model_ema": MEAN}}, "checkpoint.model_ema", "checkpoint.model"),
    ],
)
def test_averages_under_names_of_peoples_own(content: Any, place: str, other: str) -> None:
    found = choose_weights(content)
    assert (found.state, found.kind, found.place, found.other) == (MEAN, "ema", place, other)
    assert choose_weights(content, "plain").state == STATE


def test_an_average_without_names_is_told() -> None:
    average = {"decay": 0.9, "num_updates": 3, "shadow_params": [TWO, TWO]}
    found = find_weights(STATE, {"model": STATE, "ema": average}, "a.pth")
    assert found.state == STATE
    (remark,) = found.remarks("a.pth")
    assert "list without names" in remark.sentence()
    assert "('ema')" in remark.sentence()
    assert find_weights(STATE, {"model": STATE}, "a.pth").remarks("a.pth") == ()


def test_the_only_state_dict_is_taken_whatever_its_key() -> None:
    moments = {"a": ONE, "b": ONE}
    content = {"epoch": ONE, "best_weights": STATE, "opt_state": moments, "lr_scheduler": moments}
    assert choose_weights(content).state == STATE
    assert choose_weights({"a": {"state_dict": STATE}}).place == "a.state_dict"
    with pytest.raises(CheckpointError, match=r"got several, under 'generator', 'critic': write the one that is meant"):
        choose_weights({"generator": STATE, "critic": MEAN})


def test_the_advice_for_one_of_several_state_dicts_works(tmp_path: Path) -> None:
    path = save({"generator": STATE, "critic": MEAN}, tmp_path)
    torch.save({"state_dict": torch.load(path)["critic"]}, tmp_path / "new.pth")
    assert choose_weights(torch.load(tmp_path / "new.pth")).state == MEAN


@pytest.mark.parametrize("wrapper", ["_checkpoint_wrapped_module", "_fsdp_wrapped_module._checkpoint_wrapped_module"])
def test_modules_that_are_wrapped_within_a_model(wrapper: str, tmp_path: Path) -> None:
    model = net()
    state = {re.sub(r"^(blocks\.\d+\.)", rf"\1{wrapper}.", name): value for name, value in model.state_dict().items()}
    assert any(wrapper in name for name in state)
    other = net()
    load_weights(other, save({f"_fsdp_wrapped_module.{name}": value for name, value in state.items()}, tmp_path))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to("meta"), "without values"),
    ],
)
def test_weights_that_cannot_become_those_of_the_model(change: Any, kind: str, tmp_path: Path) -> None:
    state = net().state_dict()
    name = next(name for name, value in state.items() if value.ndim == 2)
    path = save({**state, name: change(state[name])}, tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"1 of another type \({re.escape(name)} {kind}\)\. Its weights are of another"
    ):
        load_weights(net(), path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scales", [False, True])
def test_quantised_weights_are_refused_with_their_names_and_scales(
    dtype: torch.dtype, scales: bool, tmp_path: Path
) -> None:
    state = net().state_dict()
    name = next(name for name, value in state.items() if value.ndim == 2)
    beside = {f"{name}_scale": torch.ones(1)} if scales else {}
    path = save({**state, name: state[name].to(dtype), **beside}, tmp_path)
    kind = str(dtype).removeprefix("torch.")
    told = rf", with the scales {re.escape(name)}_scale beside them" if scales else ""
    message = rf"got 1 as {kind} \({re.escape(name)}\){told}: they are quantised; .* dequantise them, and save"
    with pytest.raises(CheckpointError, match=message):
        load_weights(net(), path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_16_bits_or_more_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in net().state_dict().items()
    }
    load_weights(net(), save(state, tmp_path))


def test_packed_weights_of_other_names_are_quantised_too(tmp_path: Path) -> None:
    state = net().state_dict()
    name = next(name for name, value in state.items() if value.ndim == 2)
    module = name.removesuffix("weight")
    packed = {f"{module}qweight": torch.ones(1, 2, dtype=torch.int32), f"{module}scales": torch.ones(2)}
    path = save({**{key: value for key, value in state.items() if key != name}, **packed}, tmp_path)
    with pytest.raises(CheckpointError, match=r"as int32 \(.*qweight\), with the scales .*scales beside them"):
        load_weights(net(), path)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_weights_are_filled(tmp_path: Path) -> None:
    state = net().state_dict()
    name = next(name for name, value in state.items() if value.ndim == 2)
    model = net()
    load_weights(model, save({**state, name: state[name].to_sparse()}, tmp_path))
    assert torch.equal(model.state_dict()[name], state[name])


def test_other_names_of_the_same_norm_are_no_other_norm(tmp_path: Path) -> None:
    state = {f"{name}_" if name.endswith("bias") else name: value for name, value in net().state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(net(), save(state, tmp_path))
    assert "the model has LayerNorm" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.a.weight"], ["model.a.weight"]),
        (["module.a.weight"], ["module.a.weight"]),
        (["schema.a"], ["schema.a"]),
        (["a._orig_mod.weight"], ["a.weight"]),
    ],
)
def test_names_that_are_the_models_stay(names: list[str], wanted: list[str]) -> None:
    shapes = dict.fromkeys(wanted, torch.Size((1,)))
    assert list(unwrap_names(dict.fromkeys(names, ONE), shapes).state) == wanted


def test_a_prefix_that_the_model_has_is_put_before() -> None:
    found = unwrap_names({"a.weight": ONE}, {"backbone.a.weight": torch.Size((1,))})
    assert (list(found.state), found.added) == (["backbone.a.weight"], "backbone.")


@pytest.mark.parametrize(
    ("there", "here", "cause"),
    [
        (net(classes=3), net(), "It has 3 classes or outputs of head, the model 5."),
        (net(blocks=3), net(), "It is of a model of another size: one has more blocks than the other."),
        (net(), net("LN"), "The file is of DTN, the model has LayerNorm there."),
        (net("LN"), net(), "of a model with LayerNorm or another norm, which has less than the norm of this one."),
        (net("gn"), net("LN"), "The file is of TokenGroupNorm, the model has LayerNorm there."),
        (nn.Linear(2, 2), net(), "The file holds bias, weight, none of which the model has."),
    ],
)
def test_the_likely_cause(there: nn.Module, here: nn.Module, cause: str, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in here.state_dict().items()}
    with pytest.raises(CheckpointError, match=re.escape(cause)) as error:
        load_weights(here, save(there.state_dict(), tmp_path), advice="name the config that it was trained with")
    assert str(error.value).endswith(f"{cause} Name the config that it was trained with") or "holds" in cause
    assert all(torch.equal(value, before[name]) for name, value in here.state_dict().items())


def test_the_twin_of_an_old_file_is_told_by_its_names(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another norm, such as DTN, where this one has LayerNorm or less"):
        load_weights(net("LN"), save(old(net()), tmp_path))


def test_batch_norms_of_blocks_that_the_model_lacks_are_no_cause(tmp_path: Path) -> None:
    """A residual network with bottlenecks has one convolution and one norm more in each block."""

    def block(*kernels: int) -> nn.Module:
        parts = {f"conv{place}": nn.Conv2d(4, 4, kernel) for place, kernel in enumerate(kernels)}
        return nn.ModuleDict({**parts, **{f"bn{place}": nn.BatchNorm2d(4) for place in range(len(kernels))}})

    with pytest.raises(CheckpointError, match="It is of another model, or of another version of the library"):
        load_weights(block(3, 3), save(block(1, 3, 1).state_dict(), tmp_path))


def test_what_may_be_missing_or_left_over() -> None:
    own = {"a.weight": ONE, "bn.num_batches_tracked": ONE, "b.relative_position_index": ONE}
    extra = {"auxiliary_head.weight": ONE, "attn.attn_mask": ONE, "norm.old": ONE}
    fit = compare_weights({"a.weight": ONE, **extra}, own, buffers=["model.norm.old"])
    assert fit
    assert fit.left_out == ("auxiliary_head.weight",)
    assert not compare_weights({"a.weight": ONE, "a.adapter": ONE}, own)
    assert compare_weights({}, own, optional=["a.weight"])


def test_a_model_takes_the_options_of_its_checkpoint(tmp_path: Path) -> None:
    """A17: the example of the demo's detector and of two converted models."""
    trained, other = net(), net(init="layernorm")
    x = torch.randn(2, 16, 8)
    loaded = load_weights(other, save(trained.state_dict(), tmp_path))
    assert torch.equal(other(x), trained(x))
    (remark,) = loaded.remarks
    assert remark.count == 2
    assert remark.what == (
        "norms DTN take head_rms=True, unbiased=True from it, with which they were trained; the model was built with "
        "head_rms=False, unbiased=False"
    )
    assert loaded.facts == {"norm options": "DTN head_rms=True, unbiased=True"}


def test_a_model_takes_the_shift_of_its_patches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, other = (nn.Sequential(ShiftedPatchTokenization(3, 8, 4, shift=shift)) for shift in (1, 2))
    path = save(trained.state_dict(), tmp_path)
    loaded = load_weights(other, path)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(other(x)[0], trained(x)[0])
    (remark,) = loaded.remarks
    assert remark.what == (
        "layer ShiftedPatchTokenization takes shift=1 from it, with which it was trained; the model was built with "
        "shift=2"
    )
    assert loaded.facts == {"layer options": "ShiftedPatchTokenization shift=1"}
    with pytest.raises(CheckpointError, match=r"expected the layers of .*, got shift=1 where the model has shift=2"):
        fit_weights(nn.Sequential(ShiftedPatchTokenization(3, 8, 4)), trained.state_dict(), path, options="refuse")
    old = {name: value for name, value in trained.state_dict().items() if not name.endswith(EXTRA_STATE)}
    assert load_weights(other, save(old, tmp_path)).remarks == ()


CONFIG = """
model = dict(
    type='ATSS',
    backbone=dict(type='DTNSwinTransformer', depths=(1, 1), dtn_cfg=dict({})),
    act=some.thing)
"""


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("", {"norm": "DTN", "head_rms": True, "unbiased": True}),
        ("init='layernorm'", {"norm": "DTN", "head_rms": False, "unbiased": False}),
        ("head_rms=False, eps=1e-6", {"norm": "DTN", "head_rms": False, "unbiased": True, "eps": 1e-6}),
        (
            "type='GN', num_groups=4",
            {"norm": "TokenGroupNorm", "include_prefix": True, "num_groups": 4, "over": "token"},
        ),
    ],
)
def test_the_config_of_a_checkpoint_tells_its_options(settings: str, options: dict) -> None:
    assert trained_options({"meta": {"cfg": CONFIG.format(settings)}}) == options


def test_the_layernorm_twin_has_no_options() -> None:
    text = CONFIG.format("").replace("dtn_cfg", "dtn_stages=(), dtn_cfg")
    assert trained_options({"meta": {"cfg": text}}) is None


@pytest.mark.parametrize("content", [{}, {"meta": 3}, {"meta": {"cfg": "model = ("}}, {"meta": {"cfg": "a = 1"}}])
def test_checkpoints_without_a_config(content: dict) -> None:
    assert trained_options(content) is None


def test_a_config_is_not_run() -> None:
    text = "import os\nmodel = dict(a=os.system('touch pwned'), b=[1, dict(c='d')], **other)"
    assert config_value(text, "model") == {"a": None, "b": [1, {"c": "d"}]}


def test_old_files_are_compared_by_their_config(tmp_path: Path) -> None:
    trained, other = net(init="layernorm"), net()
    path = save({"state_dict": old(trained), "meta": {"cfg": CONFIG.format("init='layernorm'")}}, tmp_path)
    loaded = load_weights(other, path)
    assert not other.blocks[0].norm1.head_rms
    assert "head_rms=False" in loaded.facts["norm options"]
    assert load_weights(net(init="layernorm"), path).remarks == ()


def test_another_norm_with_the_same_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"got norm='TokenGroupNorm' where the model has norm='TokenInstanceNorm'"
    ):
        load_weights(net("in"), save(net("gn").state_dict(), tmp_path))


def runner(model: nn.Module, said: list[str], purpose: Any) -> Any:
    made: Any = SimpleNamespace(
        model=model,
        rank=0,
        logger=logging.getLogger("test"),
        call_hook=lambda name, checkpoint: None,
        load_checkpoint=lambda name: {"by": "mmengine"},
    )
    read_by_package(made, purpose, "start anew", said.append)
    return made


def test_a_training_that_starts_from_other_options_keeps_its_own_and_is_told(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    model, said = net(init="layernorm"), []
    path = save({"model": {**net().state_dict(), "head.weight": torch.ones(3, 8)}}, tmp_path)
    runner(model, said, "start").load_checkpoint(path)
    assert not model.blocks[0].norm1.head_rms
    assert torch.equal(model.blocks[1].mlp.weight, net().blocks[1].mlp.weight)
    assert said == [
        f"note: {path}: 2 norms DTN keep head_rms=False, unbiased=False of the model; it was trained with "
        "head_rms=True, unbiased=True, so outputs are others at first"
    ]
    assert runner(model, said, "start").load_checkpoint("torchvision://resnet50") == {"by": "mmengine"}


def test_a_training_goes_on_with_the_same_options_only(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    path = save({"state_dict": net().state_dict(), "optimizer": {}}, tmp_path)
    assert runner(net(), [], "resume").load_checkpoint(path)["optimizer"] == {}
    with pytest.raises(CheckpointError, match=r"got head_rms=True, unbiased=True where .*unbiased=False: start anew"):
        runner(net(init="layernorm"), [], "resume").load_checkpoint(path)
    bare = save(net().state_dict(), tmp_path)
    with pytest.raises(
        CheckpointError, match="without a 'state_dict': start from its weights with --cfg-options load_f"
    ):
        runner(net(), [], "resume").load_checkpoint(bare)


def test_the_hash_of_weights_is_that_of_stores_before_options_were_saved() -> None:
    model = net()
    assert hash_weights(model.state_dict()) == hash_weights(old(model))
    assert isinstance(model.blocks[0].norm1, DTN)
