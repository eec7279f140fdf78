"""Odd checkpoints through every loader: all give the same weights, or all refuse for the same reason."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dtn_det.errors import CheckpointError
from dtn_det.layers.options import EXTRA_STATE
from dtn_det.training.config import load_config
from dtn_det.training.run import read_by_package

pytest.importorskip("mmpretrain")
timm = pytest.importorskip("timm")

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSIFIER = CONFIGS / "dtn_cifar" / "dtn-vit-pico-p4_3e_cifar10.py"
DETECTOR = CONFIGS / "dtn_demo" / "atss_dtn-swin-nano_fpn_shapes.py"

State = dict[str, Tensor]


def timm_model(path: Path | None, weights: Any = None) -> nn.Module:
    from dtn_det.robustness.classification.models.loading import load_classifier

    return load_classifier(f"timm:resnet10t@{path or 'random'}", 10, weights).network


def classifier(path: Path | None, weights: Any = None) -> nn.Module:
    from dtn_det.robustness.classification.models.mmpretrain import load_mmpretrain

    if path is None:
        from mmengine.registry import MODELS, DefaultScope

        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return MODELS.build(load_config(str(CLASSIFIER)).model)
    return load_mmpretrain(f"{CLASSIFIER}@{path}", 10, weights).network


def detector(path: Path | None, weights: Any = None) -> nn.Module:
    from mmdet.registry import MODELS

    from dtn_det.robustness.detection.models.mmdetection import build_detector

    cfg = load_config(str(DETECTOR))
    if path is None:
        return MODELS.build(cfg.model)
    return build_detector(cfg, str(path), torch.device("cpu"), weights=weights).model


def by_runner(path: Path | None, weights: Any = None) -> nn.Module:
    """What tools/test.py has its Runner do."""
    model = _detector_of_the_runner()
    if path is not None:
        runner: Any = SimpleNamespace(
            model=model,
            rank=0,
            logger=logging.getLogger("test"),
            call_hook=lambda name, checkpoint: None,
            load_checkpoint=None,
        )
        read_by_package(runner, "test", "take another", print, weights)
        runner.load_checkpoint(str(path))
    return model


@functools.cache
def _detector_of_the_runner() -> nn.Module:
    return detector(None)


def backbone(path: Path | None, weights: Any = None) -> nn.Module:
    from mmdet.registry import MODELS

    settings = {
        "embed_dims": 8,
        "depths": (2, 2),
        "num_heads": (1, 2),
        "strides": (4, 2),
        "out_indices": (0, 1),
        "dtn_stages": (0, 1),
    }
    init = {} if path is None else {"init_cfg": {"type": "Pretrained", "checkpoint": str(path), "weights": weights}}
    model: nn.Module = MODELS.build({"type": "DTNSwinTransformer", "window_size": 4, **settings, **init})
    if path is not None:
        model.init_weights()
    return model


# Those that build their model in a moment take all files; the others, which take seconds, those of each kind.
LOADERS = {"timm": timm_model, "mmpretrain": classifier, "mpc": detector, "runner": by_runner, "init_cfg": backbone}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) if value.is_floating_point() else value for name, value in state.items()}


def noise(state: State) -> State:
    """The weights of a model that was trained apart."""
    torch.manual_seed(5)
    return {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def within(state: State) -> State:
    """As of a model whose parts were compiled."""
    return {name.replace(".", "._orig_mod.", 1): value for name, value in state.items()}


READ: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "net": lambda state: {"net": state, "acc": 93.2},
    "nested": lambda state: {"model": {"state_dict": state}},
    "parallel": lambda state: {"state_dict": under("module.", state)},
    "compiled": lambda state: {"model_state_dict": under("_orig_mod.", state)},
    "compiled parallel": lambda state: {"model": under("module._orig_mod.", state)},
    "compiled parts": lambda state: within(state),
    "lightning": lambda state: {
        "pytorch-lightning_version": "2.4.0",
        "hyper_parameters": {"lr": 0.1},
        "state_dict": {**under("model.", state), "criterion.weight": torch.ones(3)},
    },
    "lightning compiled": lambda state: {"state_dict": under("net._orig_mod.", state)},
    "timm with average": lambda state: {"state_dict": zeros(state), "state_dict_ema": state},
    "deit with average": lambda state: {"model": zeros(state), "model_ema": under("module.", state)},
    "average alone": lambda state: {"state_dict_ema": state},
    "mmengine with average": lambda state: {
        "meta": {"epoch": 2},
        "state_dict": state,
        "ema_state_dict": {"steps": torch.tensor(7), **under("module.", zeros(state))},
    },
    "averaged model of torch": lambda state: {"n_averaged": torch.tensor(5), **under("module.", state)},
    "teacher and student": lambda state: {
        "student": under("module.", {k: v + 0.1 if v.is_floating_point() else v for k, v in state.items()}),
        "teacher": state,
    },
    "distillation": lambda state: {"state_dict": {**under("architecture.", state), **under("teacher.", noise(state))}},
    "MoCo": lambda state: {
        "state_dict": {**under("module.encoder_k.", noise(state)), **under("module.encoder_q.", state)}
    },
    "lightning with average": lambda state: {
        "state_dict": {**under("model.", zeros(state)), **under("ema_model.", state)}
    },
    "pruned": lambda state: {"state_dict": under("module.", pruned(state))},
}


def pruned(state: State) -> State:
    """As ``torch.nn.utils.prune`` leaves it, with other values where the mask is zero."""
    found: State = {}
    for name, value in state.items():
        if name.endswith("weight") and value.ndim > 1:
            mask = (value != 0).to(value.dtype)
            found |= {f"{name}_orig": torch.where(value == 0, 7.0, value), f"{name}_mask": mask}
        else:
            found[name] = value
    return found


KINDS = (
    *("state_dict", "compiled parts", "lightning", "timm with average", "mmengine with average", "pruned"),
    *("a name less", "adapter"),
)


def pairs(files: Iterable[str]) -> list[tuple[str, str]]:
    quick = {"timm", "runner", "init_cfg"}
    return [(odd, loader) for odd in files for loader in LOADERS if loader in quick or odd in KINDS]


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """The weights of each loader's model, zero in the first row of matrices alone."""
    found = {}
    for name, load in LOADERS.items():
        torch.manual_seed(3)
        model = load(None)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
                if parameter.ndim > 1:
                    parameter[0] = 0  # as of a pruned model
        found[name] = {key: value.clone() for key, value in model.state_dict().items()}
    return found


def assert_loaded(model: nn.Module, state: State) -> None:
    found = model.state_dict()
    assert [name for name, value in state.items() if not torch.equal(found[name], value)] == []


@pytest.mark.filterwarnings("error:the state dict is of")
@pytest.mark.parametrize(("odd", "loader"), pairs(READ))
def test_all_load_it(odd: str, loader: str, states: dict[str, State], tmp_path: Path) -> None:
    torch.save(READ[odd](states[loader]), tmp_path / "odd.pth")
    assert_loaded(LOADERS[loader](tmp_path / "odd.pth"), states[loader])


@pytest.mark.parametrize("loader", LOADERS)
def test_all_load_safetensors_and_old_files(loader: str, states: dict[str, State], tmp_path: Path) -> None:
    save_file(states[loader], tmp_path / "a.safetensors")
    assert_loaded(LOADERS[loader](tmp_path / "a.safetensors"), states[loader])
    before = {name: value for name, value in states[loader].items() if not name.endswith(EXTRA_STATE)}
    torch.save(before, tmp_path / "old.pth")
    assert_loaded(LOADERS[loader](tmp_path / "old.pth"), states[loader])


@pytest.mark.parametrize(
    ("odd", "loader"), pairs(["timm with average", "mmengine with average", "lightning with average"])
)
def test_all_load_the_other_weights_where_asked(
    odd: str, loader: str, states: dict[str, State], tmp_path: Path
) -> None:
    torch.save(READ[odd](states[loader]), tmp_path / "odd.pth")
    assert_loaded(LOADERS[loader](tmp_path / "odd.pth", "plain"), zeros(states[loader]))
    assert_loaded(LOADERS[loader](tmp_path / "odd.pth", "ema"), states[loader])


def spoiled(state: State) -> State:
    name = next(name for name in state if name.endswith("norm1.weight") or name.endswith("bn1.weight"))
    return {**state, name: torch.full_like(state[name], float("nan"))}


def quantised(dtype: torch.dtype, **beside: Tensor) -> Callable[[State], State]:
    def make(state: State) -> State:
        name = next(name for name in state if name.endswith("weight") and state[name].ndim > 1)
        return {**state, name: state[name].to(dtype), **{f"{name}_{end}": value for end, value in beside.items()}}

    return make


def adapted(state: State) -> State:
    """As PEFT leaves the state dict of a model with LoRA."""
    name = next(name for name in state if name.endswith("weight") and state[name].ndim == 2)
    layer = f"base_model.model.{name.removesuffix('.weight')}"
    rows, columns = state[name].shape
    shapes = {"A": (2, columns), "B": (rows, 2)}
    lora = {f"{layer}.lora_{part}.default.weight": torch.ones(shape) for part, shape in shapes.items()}
    rest = under("base_model.model.", {other: value for other, value in state.items() if other != name})
    return {**rest, f"{layer}.base_layer.weight": state[name], **lora}


def emptied(state: State) -> State:
    """As DeepSpeed leaves the state dict of each process."""
    return {name: torch.empty(0) if value.ndim > 1 else value for name, value in state.items()}


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "empty": (lambda state: {}, "expected a state dict, or one under"),
    "no weights": (lambda state: {"epoch": 3, "state_dict": {}}, "expected a state dict, or one under"),
    "none of the names": (lambda state: {"a.b": torch.ones(1), "c": torch.ones(2)}, "a.b, c"),
    "a name less": (lambda state: dict(list(state.items())[1:]), "1 missing ("),
    "a name more": (lambda state: {**state, "strange.weight": torch.ones(1)}, "1 unexpected (strange.weight)"),
    "int8": (quantised(torch.int8), "got 1 as int8 ("),
    "packed in uint8": (quantised(torch.uint8), "got 1 as uint8 ("),
    "8-bit floats": (quantised(torch.float8_e4m3fn), "): they are quantised; load them with the library that"),
    "8-bit floats and scales": (
        quantised(torch.float8_e5m2, scale=torch.ones(1)),
        "weight_scale beside them: they are",
    ),
    "adapter": (adapted, "got 3 tensors in the names of an adapter such as LoRA ("),
    "ZeRO-3": (lambda state: {"module": emptied(state)}, "as DeepSpeed ZeRO-3 writes where the values are"),
    "not of numbers": (spoiled, "1 not of numbers ("),
}


@pytest.mark.parametrize(("odd", "loader"), pairs(REFUSED))
def test_all_refuse_it(odd: str, loader: str, states: dict[str, State], tmp_path: Path) -> None:
    make, cause = REFUSED[odd]
    torch.save(make(states[loader]), tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as error:
        LOADERS[loader](tmp_path / "odd.pth")
    assert cause in str(error.value)
    assert "odd.pth" in str(error.value)


@pytest.mark.parametrize("loader", ["timm", "runner", "init_cfg"])
def test_all_refuse_an_average_that_is_not_there(loader: str, states: dict[str, State], tmp_path: Path) -> None:
    torch.save({"state_dict": states[loader]}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"expected an average of the weights \(EMA\)"):
        LOADERS[loader](tmp_path / "odd.pth", "ema")
