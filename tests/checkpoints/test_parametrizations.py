"""Weights in parametrizations of PyTorch: what is folded, and what is refused by its name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from dtn_det.check import inspect_path
from dtn_det.check.model import Target
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.parametrizations import check_parametrizations, fold_weight_norm
from dtn_det.errors import CheckpointError

ONE = torch.ones(1)


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def old_weight_norm(module: nn.Module, name: str = "weight", dim: int | None = 0) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module, name, dim)


NEW, OLD = parametrizations.weight_norm, old_weight_norm


@pytest.mark.parametrize("wrap", [NEW, OLD])
@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize("make", [lambda: nn.Linear(5, 3), lambda: nn.Linear(5, 1), lambda: nn.Conv2d(2, 3, 3)])
def test_weight_norm_becomes_the_weight_that_torch_leaves(wrap: Any, dim: int | None, make: Callable) -> None:
    module = make()
    wrap(module, "weight", dim)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5).add_(0.1)
    state, names = fold_weight_norm({f"a.{name}": value for name, value in module.state_dict().items()})
    if wrap is NEW:
        parametrize.remove_parametrizations(module, "weight")
    else:
        nn.utils.remove_weight_norm(module)
    assert names == ("a.weight",)
    assert set(state) == {"a.weight", "a.bias"}
    assert torch.equal(state["a.weight"], module.weight)


@pytest.mark.parametrize("wrap", [NEW, OLD])
@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod."])
def test_a_model_takes_them_and_the_user_is_told(wrap: Any, prefix: str, tmp_path: Path) -> None:
    there, here = layers(), layers()
    wrap(there[0]), wrap(there[2])
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(0.3)
    torch.save({"state_dict": {prefix + n: v for n, v in there.state_dict().items()}}, tmp_path / "a.pth")
    (remark,) = load_weights(here, str(tmp_path / "a.pth")).remarks
    x = torch.randn(2, 3, 3, 3)
    assert torch.equal(here(x), there(x))
    assert (remark.kind, remark.count) == ("weight_norm", 2)


@pytest.mark.parametrize("wrap", [NEW, OLD])
def test_a_model_with_weight_norm_takes_its_own_parts(wrap: Any, tmp_path: Path) -> None:
    there, here = layers(), layers()
    wrap(there[2]), wrap(here[2])
    torch.save({f"model.{name}": value for name, value in there.state_dict().items()}, tmp_path / "a.pth")
    assert load_weights(here, str(tmp_path / "a.pth")).remarks == ()
    x = torch.randn(1, 4)
    assert torch.equal(here[2](x), there[2](x))


def test_weight_norm_of_what_is_left_out_is_not_told(tmp_path: Path) -> None:
    """As of the head of a DINO, beside its backbone."""
    there, head, here = layers(), nn.Linear(2, 2), layers()
    NEW(head)
    states = {"backbone.": there.state_dict(), "head.last_layer.": head.state_dict()}
    torch.save({prefix + name: v for prefix, s in states.items() for name, v in s.items()}, tmp_path / "a.pth")
    assert [remark.kind for remark in load_weights(here, str(tmp_path / "a.pth")).remarks] == ["weights_left_out"]


def test_types_are_kept_and_other_tensors_are_no_parts() -> None:
    half = {"a_g": torch.ones(2, 1).half(), "a_v": torch.ones(2, 4).half()}
    assert fold_weight_norm(half)[0]["a"].dtype == torch.float16
    for state in (
        {"a_g": ONE},
        {"a_v": ONE},
        {"a": ONE, **half},
        {"a_g": torch.ones(2, 3), "a_v": torch.ones(2, 3)},
        {"a_g": torch.ones(2, 1).int(), "a_v": torch.ones(2, 3).int()},
    ):
        assert fold_weight_norm(state) == (state, ())


class LoRA(nn.Module):
    """As minLoRA adapts a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(torch.ones(1, 4)), nn.Parameter(torch.ones(2, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.lora_B @ self.lora_A


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


OTHERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "spectral": (parametrizations.spectral_norm, "got 1 in the parts of spectral norm (2.parametrizations.weight."),
    "old spectral": (nn.utils.spectral_norm, "got 1 in the parts of spectral norm (2.weight_orig)"),
    "orthogonal": (parametrizations.orthogonal, "got 1 in the parts of an orthogonal parametrization ("),
    "LoRA": (lambda m: parametrize.register_parametrization(m, "weight", LoRA()), "in the parts of LoRA ("),
    "stateless": (lambda m: parametrize.register_parametrization(m, "weight", Doubled()), "of a parametrization ("),
    "on top of weight norm": (
        lambda m: (NEW(m), parametrize.register_parametrization(m, "weight", LoRA())),
        "in the parts of LoRA (",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_parametrizations_are_named_and_the_advice_works(kind: str, tmp_path: Path) -> None:
    wrap, cause = OTHERS[kind]
    there, here = layers(), layers()
    wrap(there[2])
    path = tmp_path / "a.pth"
    torch.save({"model": {f"module.{name}": value for name, value in there.state_dict().items()}}, path)
    with pytest.raises(CheckpointError) as error:
        load_weights(here, str(path))
    assert cause in str(error.value)
    old = kind == "old spectral"
    advised = nn.utils.remove_spectral_norm if old else parametrize.remove_parametrizations
    assert f"{advised.__name__}(module, NAME) for each of them, such as NAME='weight' of the module '2'" in str(
        error.value
    )
    (result,) = inspect_path(path)
    assert cause.split("(")[0] in result.problems[0]
    there.eval()
    x = torch.randn(2, 3, 3, 3)
    expected = there(x)
    advised(there[2], "weight")
    torch.save(there.state_dict(), path)
    load_weights(here, str(path))
    torch.testing.assert_close(here.eval()(x), expected)


def test_parts_that_the_model_does_not_have_are_no_reason_to_refuse() -> None:
    check_parametrizations({"head.a_orig": ONE, "head.a_u": ONE}, own=["b.weight"])
    check_parametrizations({"a_orig": ONE, "a_u": ONE}, own=["a", "a_orig", "a_u"])


def test_check_builds_the_model_for_the_classes_of_the_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = tmp_path / "a.pth"
    model = timm.create_model("test_vit", num_classes=3)
    NEW(model.head)
    torch.save(model.state_dict(), path)
    (result,) = inspect_path(path, Target("timm:test_vit"))
    assert (result.fits, [remark.kind for remark in result.remarks]) == (True, ["weight_norm", "other_classes"])
    # A name of another model beside another number of classes: the number is no cause.
    state = timm.create_model("test_vit", num_classes=3).state_dict()
    torch.save({**state, "strange.weight": ONE}, path)
    (result,) = inspect_path(path, Target("timm:test_vit"))
    assert result.fits is False
    assert "1 unexpected (strange.weight)" in result.problems[0]
    assert "of another shape" not in result.problems[0]
