"""Names of the same shapes that stand for another structure are not advised to be renamed."""

from __future__ import annotations

import pathlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dtn_det.checkpoints.load
import dtn_det.export
from dtn_det.check import inspect_path
from dtn_det.check.model import Target
from dtn_det.checkpoints.fit import compare_weights
from dtn_det.checkpoints.load import load_weights, misfit
from dtn_det.checkpoints.structure import find_structure
from dtn_det.errors import MisfitError

timm = pytest.importorskip("timm")

TOKEN, POOLED = {"global_pool": "token"}, {"global_pool": "avg"}
WITHOUT = {"class_token": False, "global_pool": "avg"}


def values(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(4) for name in names}


def vit(**arguments: Any) -> Any:
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, **arguments).eval()


@pytest.mark.parametrize(
    ("there", "here", "cause"),
    [
        (POOLED, TOKEN, "The file has fc_norm, a norm after average pooling .*, and the model norm, a norm before"),
        (TOKEN, POOLED, "The model has fc_norm, a norm after average pooling .*, and the file norm, a norm before"),
        (WITHOUT, TOKEN, "The model has a class token, and the file none"),
        (TOKEN, WITHOUT, "The file has a class token, and the model none"),
    ],
)
def test_pooling_is_named_and_the_model_that_fits_can_be_built(
    there: dict, here: dict, cause: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": vit(**there).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(MisfitError, match=cause) as error:
        load_weights(vit(**here), str(tmp_path / "a.pth"))
    message = str(error.value)
    assert "rename them" not in message
    assert "no other config" not in message
    (call,) = re.findall(r"model = (timm\.create_model\(.*?\));", message)
    built = eval(call.replace("num_classes=3", "num_classes=3, depth=1"), {"timm": timm})
    load_weights(built, str(tmp_path / "a.pth"))


def test_the_advice_for_average_pooling_gives_a_folder_that_mce_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mmpretrain.models")
    from dtn_det.robustness.classification.models.loading import load_classifier

    monkeypatch.chdir(tmp_path)
    there = timm.create_model("test_vit", num_classes=3, global_pool="avg").eval()
    torch.save(there.state_dict(), "a.pth")
    with pytest.raises(MisfitError) as error:
        load_classifier("timm:test_vit@a.pth", 3)
    (result,) = inspect_path(Path("a.pth"), Target("timm:test_vit"))
    (advice,) = re.findall(r"(model = timm\..*); then name (\S+)$", str(error.value))
    assert advice[0] in result.problems[0]
    assert "3 classes" not in result.problems[0]
    exec(advice[0], {"timm": timm, "dtn_det": dtn_det, "pathlib": pathlib})
    network = load_classifier(advice[1], 3).network
    x = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(network(x), there(x))


def test_the_model_to_build_has_the_classes_of_the_file(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", num_classes=5, global_pool="avg").state_dict(), tmp_path / "a.pth")
    with pytest.raises(MisfitError, match=r"It has 5 classes or outputs of head, the model 3\.") as error:
        load_weights(timm.create_model("test_vit", num_classes=3), str(tmp_path / "a.pth"))
    assert "timm.create_model('test_vit', num_classes=5, global_pool='avg')" in str(error.value)


def test_distilled_models_are_named() -> None:
    unexpected, missing = ("dist_token", "head_dist.weight", "head_dist.bias"), ()
    found = find_structure(unexpected, missing, ())
    assert found is not None
    assert found.cause.startswith("The file has the second head or token of a distilled model")
    found = find_structure(missing, unexpected, ())
    assert found is not None
    assert found.cause.startswith("The model has the second head or token of a distilled model")


def test_a_class_token_alone_does_not_show_how_to_build_the_model() -> None:
    found = find_structure((), ("cls_token",), ())
    assert found is not None
    assert (found.cause, found.arguments) == ("The model has a class token, and the file none.", {})
    assert find_structure(("strange",), ("cls_token",), ()) is None


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("backbone.ln2.weight", "backbone.ln1.weight"),
        ("beit.pooler.layernorm.weight", "beit.layernorm.weight"),
        ("norm_pre.weight", "head.norm.weight"),
        ("dist_token", "cls_token"),
        ("reg_token", "cls_token"),
        ("head_dist.weight", "head.weight"),
        ("blocks.0.attn.q_norm.weight", "blocks.0.attn.k_norm.weight"),
    ],
)
def test_names_of_another_task_are_not_to_be_renamed(there: str, here: str) -> None:
    fit = compare_weights(values("a", there), values("a", here))
    message = str(misfit(fit, torch.nn.Identity(), "a.pth", "name the model"))
    assert f"has {there} where the model has {here}" in message or "distilled" in message
    assert "rename them" not in message
    assert message.endswith("Name the model")


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("blocks.0.gamma_1", "blocks.0.ls1.gamma"),
        ("layers.0.ln1.weight", "blocks.0.norm1.weight"),
        ("class_token", "cls_token"),
        ("encoder.norm.weight", "norm.weight"),
    ],
)
def test_true_renamings_are_still_advised(there: str, here: str) -> None:
    fit = compare_weights(values("a", there), values("a", here))
    message = str(misfit(fit, torch.nn.Identity(), "a.pth", "name the model"))
    assert "rename them with state[NEW] = state.pop(OLD)" in message
