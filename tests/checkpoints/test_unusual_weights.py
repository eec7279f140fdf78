"""Pruned weights, adapters, empty tensors, and layouts that timm renames."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from dtn_det.check import inspect_path
from dtn_det.check.model import Target
from dtn_det.checkpoints.fit import compare_weights
from dtn_det.checkpoints.load import load_weights, misfit
from dtn_det.checkpoints.state_dict import apply_masks, check_whole
from dtn_det.errors import CheckpointError, ClassCountError, MisfitError
from dtn_det.training.run import read_by_package

timm = pytest.importorskip("timm")

ONE = torch.ones(1)


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def save(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def test_pruned_weights_are_those_of_torch(tmp_path: Path) -> None:
    there, here = two_layers(), two_layers()
    prune.l1_unstructured(there[0], "weight", 0.5)
    prune.random_unstructured(there[1], "bias", 0.5)
    loaded = load_weights(here, save({"state_dict": there.state_dict()}, tmp_path / "a.pth"))
    x = torch.randn(3, 4)
    assert torch.equal(here(x), there(x))
    (remark,) = loaded.remarks
    assert (remark.kind, remark.count, set(remark.examples)) == ("pruned_weights", 2, {"0.weight", "1.bias"})


def test_going_on_from_a_pruned_checkpoint_says_so(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    there, here, said = two_layers(), two_layers(), []
    prune.l1_unstructured(there[0], "weight", 0.5)
    runner: Any = SimpleNamespace(
        model=here, rank=0, logger=logging.getLogger("test"), call_hook=lambda name, checkpoint: None
    )
    runner.load_checkpoint = None
    read_by_package(runner, "resume", "take another", said.append)
    runner.load_checkpoint(save({"state_dict": there.state_dict()}, tmp_path / "a.pth"))
    assert torch.equal(here[0].weight, there[0].weight)
    assert "1 weights are pruned, kept as X_orig and X_mask" in said[0]


def test_a_model_that_is_pruned_itself_takes_weights_and_masks(tmp_path: Path) -> None:
    there, here = two_layers(), two_layers()
    prune.l1_unstructured(there[0], "weight", 0.5)
    prune.random_unstructured(here[0], "weight", 0.1)
    loaded = load_weights(here, save(there.state_dict(), tmp_path / "a.pth"))
    assert torch.equal(here[0].weight_mask, there[0].weight_mask)
    assert loaded.remarks == ()


def test_masks_keep_the_type_and_need_their_weight() -> None:
    half = {"a_orig": ONE.half(), "a_mask": ONE}
    assert apply_masks(half)[0]["a"].dtype == torch.float16
    for state in ({"a_mask": ONE}, {"a_orig": ONE}, {"a": ONE, **half}, {"a_orig": ONE, "a_mask": torch.ones(2)}):
        found, pruned = apply_masks(state)
        assert (found, pruned) == (state, ())


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.q.lora_A.weight",
        "q.lora_B.default.weight",
        "q.lora_A",
        "base_model.model.head.modules_to_save.default.weight",
        "base_model.model.q.base_layer.weight",
    ],
)
def test_adapters_are_told_by_their_names(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"an adapter such as LoRA .*save the state_dict\(\) of model.merge_and_"):
        check_whole({"a.weight": ONE, name: ONE})
    check_whole({name: ONE}, own=[name])


def test_modules_of_dla_and_empty_buffers_are_no_such_thing() -> None:
    check_whole({"base_layer.0.weight": ONE, "observer.min_val": torch.empty(0)})


def test_the_folder_of_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match=r"got adapter_config.json and an adapter .*\.merge_and_unload\(\)"):
        load_weights(two_layers(), str(tmp_path))
    (result,) = inspect_path(tmp_path)
    assert "adapter_config.json and an adapter such as LoRA" in result.problems[0]


def test_check_tells_files_that_are_not_whole(tmp_path: Path) -> None:
    torch.save({"module": {"a.weight": torch.empty(0), "a.bias": ONE}}, tmp_path / "a.pth")
    (result,) = inspect_path(tmp_path / "a.pth")
    assert "run the zero_to_fp32.py" in result.problems[0]


@pytest.mark.parametrize("name", ["_flat_param", "student.backbone._fsdp_wrapped_module.blocks.0._flat_param"])
def test_flat_rows_of_fsdp_are_told_by_their_names(name: str, tmp_path: Path) -> None:
    torch.save({"model": {name: ONE, "head.weight": ONE}, "iteration": 5}, tmp_path / "a.pth")
    message = r"got 1 flat rows of weights \(.*_flat_param\), .* StateDictType\.FULL_STATE_DICT\)$"
    with pytest.raises(CheckpointError, match=message):
        load_weights(two_layers(), str(tmp_path / "a.pth"))
    (result,) = inspect_path(tmp_path / "a.pth")
    assert "FULL_STATE_DICT" in result.problems[0]
    check_whole({name: ONE}, own=[name])


def with_scale(name: str) -> nn.Module:
    """Blocks with a scale beside their layers, as LayerScale, under a name of some library."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.ones(4)))

    def block() -> nn.Module:
        return nn.ModuleDict({"norm1": nn.LayerNorm(4), "ls1": Scale(), "ls2": Scale(), "mlp": nn.Linear(4, 4)})

    return nn.ModuleDict({"blocks": nn.ModuleList(block() for _ in range(11)), "head": nn.Linear(4, 2)})


def test_weights_under_other_names_are_told_with_theirs_and_renaming_works(tmp_path: Path) -> None:
    # Sorted as safetensors sorts them: block 10 before block 2.
    state = dict(sorted(with_scale("weight").state_dict().items()))
    here = with_scale("gamma")
    with pytest.raises(MisfitError) as error:
        load_weights(here, save(state, tmp_path / "a.pth"))
    assert "under other names (blocks.0.ls1.weight like blocks.0.ls1.gamma)" in str(error.value)
    assert "rename them with state[NEW] = state.pop(OLD)" in str(error.value)
    assert "else name the model or the config" in str(error.value)
    pairs = compare_weights(state, here.state_dict()).other_names
    assert len(pairs) == 22
    assert all(here_name == there.replace("weight", "gamma") for there, here_name in pairs)
    for there, here_name in pairs:
        state[here_name] = state.pop(there)
    load_weights(here, save(state, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("there", "here", "advice"),
    [
        # One more name, or another shape: no pairs.
        (["a.weight"], ["b.gamma", "b.beta"], "Name the model or the config"),
        # The order of channels may be another.
        (["layers.0.downsample.norm.weight"], ["stages.0.downsample.norm.weight"], "Name the model or the config"),
        (["a.weight"], ["b.gamma"], "rename them with state[NEW] = state.pop(OLD)"),
    ],
)
def test_renaming_is_advised_by_the_evidence_of_shapes_alone(there: list, here: list, advice: str) -> None:
    own = {"head.weight": torch.ones(2), **{name: torch.ones(1) for name in here}}
    fit = compare_weights({"head.weight": torch.ones(2), **dict.fromkeys(there, ONE)}, own)
    assert advice in str(misfit(fit, two_layers(), "a.pth", "name the model or the config"))


def test_a_row_of_blocks_under_another_name_is_no_other_depth() -> None:
    names = ("norm.weight", "norm.bias", "mlp.weight", "mlp.bias")

    def state(row: str, count: int) -> dict[str, Tensor]:
        return {f"{row}.{i}.{name}": torch.ones(i + 1) for i in range(count) for name in names}

    assert not compare_weights(state("layers", 2), state("stages", 2)).other_depth
    assert compare_weights(state("layers", 2), state("layers", 3)).other_depth
    assert compare_weights(state("layers", 3), state("layers", 2)).other_depth


def test_a_diverged_training_is_no_other_config(tmp_path: Path) -> None:
    state = {name: torch.full_like(value, float("nan")) for name, value in two_layers().state_dict().items()}
    with pytest.raises(MisfitError, match=r"The training has diverged\. Take a checkpoint of an earlier epoch$"):
        load_weights(two_layers(), save(state, tmp_path / "a.pth"))


SWIN: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (1, 1, 1),
    "num_heads": (1, 2, 2),
}


def swin(**options: Any) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(1)
    model: nn.Module = SwinTransformer(**{**SWIN, "num_classes": 5, **options})
    return model


def authors_layout(model: nn.Module) -> dict[str, Tensor]:
    """Downsampling at the end of the stage before, the classifier as `head`, and a buffer that timm makes itself."""
    index = "layers.0.blocks.0.attn.relative_position_index"
    found = {index: model.get_buffer(index)}
    for name, value in model.state_dict().items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.", 1)
        found[name.replace("head.fc.", "head.")] = value
    return found


@pytest.mark.parametrize("wrap", [lambda s: {"model": s}, lambda s: {f"module.{name}": v for name, v in s.items()}])
def test_swin_of_its_authors_fits_timms(wrap: Any, tmp_path: Path) -> None:
    there, here = swin(), swin()
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loaded = load_weights(here, save(wrap(authors_layout(there)), tmp_path / "a.pth"))
    here.eval(), there.eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(here(x), there(x))
    (remark,) = loaded.remarks
    assert remark.kind == "renamed_by_timm"
    assert remark.what.endswith("were renamed by checkpoint_filter_fn of timm.models.swin_transformer")
    assert "layers.1.downsample.norm.weight" in remark.examples


def test_another_number_of_classes_in_that_layout(tmp_path: Path) -> None:
    path = save(authors_layout(swin(num_classes=3)), tmp_path / "a.pth")
    with pytest.raises(MisfitError, match=r"It has 3 classes or outputs of head\.fc, the model 5") as error:
        load_weights(swin(), path)
    assert error.value.num_classes == 3


@pytest.mark.parametrize("other", [{"window_size": 2}, {"patch_size": 4}, {"embed_dim": 16}])
def test_what_timm_would_resize_is_refused_and_not_called_another_size(other: dict, tmp_path: Path) -> None:
    path = save(authors_layout(swin(**other)), tmp_path / "a.pth")
    with pytest.raises(MisfitError) as error:
        load_weights(swin(), path)
    assert "It is of another model, or of another version of the library that names its weights" in str(error.value)
    assert "another size" not in str(error.value)


def test_the_same_names_in_other_shapes_are_of_another_size(tmp_path: Path) -> None:
    path = save(swin(embed_dim=16).state_dict(), tmp_path / "a.pth")
    with pytest.raises(MisfitError, match="It is of a model of another size"):
        load_weights(swin(), path)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "beit_base_patch16_224"])
def test_positions_of_another_image_size_are_named_as_such(name: str, tmp_path: Path) -> None:
    small, large = (timm.create_model(name, img_size=side, depth=1, num_classes=2) for side in (32, 64))
    with pytest.raises(MisfitError, match="It is of the model built for images or windows of another size"):
        load_weights(large, save(small.state_dict(), tmp_path / "a.pth"))


def test_images_of_other_channels_are_named_as_such(tmp_path: Path) -> None:
    gray = timm.create_model("resnet10t", in_chans=1, num_classes=2)
    message = r"It is of a model for images of 1 channel, and this one takes 3\. Name .*; to evaluate .*, name python:"
    with pytest.raises(MisfitError, match=message):
        load_weights(timm.create_model("resnet10t", num_classes=2), save(gray.state_dict(), tmp_path / "a.pth"))


def test_mce_and_check_take_that_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtn_det.robustness.classification.models.loading import load_classifier

    monkeypatch.setattr(timm, "create_model", lambda name, **options: swin(num_classes=options.get("num_classes", 7)))
    path = save({"model": authors_layout(swin())}, tmp_path / "old.pth")
    classifier = load_classifier(f"timm:swin_tiny_patch4_window7_224@{path}", 5)
    assert [remark.kind for remark in classifier.remarks] == ["renamed_by_timm"]
    with pytest.raises(ClassCountError):
        load_classifier(f"timm:swin_tiny_patch4_window7_224@{path}", 4)
    (result,) = inspect_path(Path(path), Target("timm:swin_tiny_patch4_window7_224"))
    assert (result.fits, [remark.kind for remark in result.remarks]) == (True, ["renamed_by_timm", "other_classes"])
