"""Which norms a conversion chooses, in how many groups, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from conversion_models import small_vit
from torch import nn

from dtn_det import convert_attention, convert_norm, convert_tokenization, plan_norms
from dtn_det.layers import DTN, RMSNorm


def _replaced(model: nn.Module, **kwargs: Any) -> list[str]:
    return [site.name for site in plan_norms(model, **kwargs).replaced]


def test_authors_placement_of_a_vit_is_the_first_ten_of_twelve_blocks() -> None:
    names = _replaced(small_vit(depth=12))
    assert names == [f"blocks.{i}.norm{j}" for i in range(10) for j in (1, 2)]


def test_authors_placement_of_a_pyramid_is_all_stages_but_the_last() -> None:
    timm = pytest.importorskip("timm")
    names = _replaced(timm.create_model("pvt_v2_b0"))
    assert names == [f"stages.{s}.blocks.{b}.norm{j}" for s in range(3) for b in range(2) for j in (1, 2)]


def test_authors_placement_of_swin_is_every_block() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1))
    assert _replaced(model) == [f"layers.{s}.blocks.0.norm{j}" for s in range(4) for j in (1, 2)]


def test_all_blocks() -> None:
    assert len(_replaced(small_vit(depth=12), layers="blocks")) == 24


def test_regular_expression_and_function() -> None:
    model = small_vit()
    assert _replaced(model, layers=r"blocks\.[01]\.norm2") == ["blocks.0.norm2", "blocks.1.norm2"]
    assert _replaced(model, layers=lambda name, norm: name.endswith("1.norm1")) == ["blocks.1.norm1"]


def test_a_regular_expression_reaches_norms_outside_of_blocks() -> None:
    plan = plan_norms(small_vit(), layers="^norm$", num_groups=4)
    assert [(site.name, site.num_groups, site.block) for site in plan.replaced] == [("norm", 4, None)]


def test_reasons_to_stay() -> None:
    timm = pytest.importorskip("timm")
    plan = plan_norms(timm.create_model("pvt_v2_b0"))
    kept = dict(plan.kept)
    assert kept["stages.0.blocks.0.attn.norm"] == "inside the attention"
    assert kept["stages.3.blocks.0.norm1"] == "the authors keep LayerNorm in this block"
    assert kept["patch_embed.norm"] == "not in a block"
    cait = plan_norms(timm.create_model("cait_xxs24_224"))
    assert dict(cait.kept)["blocks_token_only.0.norm1"] == "sees the class token alone"


def test_groups_of_heads_number_and_function() -> None:
    timm = pytest.importorskip("timm")
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1))
    heads = [site.num_groups for site in plan_norms(swin).replaced]
    assert heads == [3, 3, 6, 6, 12, 12, 24, 24]
    assert {site.num_groups for site in plan_norms(swin, num_groups=8).replaced} == {8}
    groups = [
        site.num_groups
        for site in plan_norms(swin, num_groups=lambda name, norm: norm.normalized_shape[0] // 32).replaced
    ]
    assert groups == heads


def test_a_plan_reads_well() -> None:
    text = str(plan_norms(small_vit(depth=1)))
    assert text.splitlines()[0] == "VisionTransformer: 2 norms become dtn, 1 stay"
    assert "  blocks.0.norm1: 24 channels in 3 groups" in text
    assert "  norm stays: not in a block" in text


def test_levit_replaces_the_batch_norm_at_the_start_of_each_branch() -> None:
    timm = pytest.importorskip("timm")
    plan = plan_norms(timm.create_model("levit_128s"))
    assert {name.rpartition(".")[2] for name in (site.name for site in plan.replaced)} == {"qkv", "ln1"}
    assert set(dict(plan.kept).values()) == {"ends a branch"}
    assert _replaced(timm.create_model("levit_128s"), layers=r"stages\.0\.blocks\.0\.mlp\.ln2") == [
        "stages.0.blocks.0.mlp.ln2"
    ]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layers": "nothing"}, r"expected norms to replace in VisionTransformer with layers='nothing', got none"),
        ({"layers": "("}, "or a regular expression, got '\\('"),
        ({"layers": 3}, "or a regular expression, got 3"),
        ({"layers": [0, 1]}, r"got \[0, 1\]: write the blocks 0 and 1 as layers=r'blocks\\.\(0\|1\)\\.'$"),
        ({"num_groups": 5}, r"expected groups that divide the width 24 of 'blocks.0.norm1', got 5 \(num_groups\)"),
        ({"num_groups": "head"}, "expected num_groups to be 'heads', an integer or a function"),
        ({"num_groups": True}, "expected num_groups to be 'heads', an integer or a function"),
        ({"layers": "^norm$"}, "expected an attention beside 'norm' to take the groups from, got none"),
        ({"grid": (0, 4)}, r"expected grid to be \(H, W\), a function of the number of tokens"),
        ({"grid": "square"}, r"expected grid to be \(H, W\), a function of the number of tokens"),
        ({"norm": "dnt"}, "dnt"),
        ({"momentum": 0.1}, "momentum"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_model_alone(kwargs: dict[str, Any], message: str) -> None:
    model = small_vit()
    with pytest.raises((ValueError, TypeError), match=message):
        convert_norm(model, **kwargs)
    assert not any(isinstance(module, DTN) for module in model.modules())


def test_heads_that_do_not_divide_the_width_name_both() -> None:
    model = small_vit(depth=2)
    model.get_submodule("blocks.0.attn").num_heads = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"the width 24 of 'blocks.0.norm1', got 5 \(the heads of its attention"):
        convert_norm(model)


def test_a_model_without_norms() -> None:
    with pytest.raises(ValueError, match=r"got none \(it has no torch\.nn\.LayerNorm\): choose another model"):
        convert_norm(nn.Sequential(nn.Linear(3, 3)))


def test_a_model_with_norms_of_other_classes() -> None:
    """A class called LayerNorm need not be PyTorch's."""
    own = type("LayerNorm", (nn.Module,), {})
    model = nn.ModuleDict({"a": own(), "b": nn.InstanceNorm2d(4), "c": nn.InstanceNorm2d(4)})
    found = (
        r"its norms are 1 LayerNorm \(a\), 2 InstanceNorm2d \(b\), which are no torch\.nn\.LayerNorm and may compute"
    )
    with pytest.raises(ValueError, match=found):
        convert_norm(model)


@pytest.mark.parametrize("layers", ["authors", "blocks", r"blocks\.0\."])
def test_norms_become_others_once(layers: str) -> None:
    model = convert_norm(small_vit(depth=12))
    before = repr(model)
    number = {"authors": 19, "blocks": 19, r"blocks\.0\.": 1}[layers]
    with pytest.raises(
        ValueError,
        match=rf"are converted already, DTN at 'blocks\.0\.norm1' and {number} more: build the model again",
    ):
        convert_norm(model, "rmsnorm", layers=layers)
    assert repr(model) == before
    convert_norm(model, "rmsnorm", layers=r"blocks\.1[01]\.")
    assert isinstance(model.get_submodule("blocks.10.norm1"), RMSNorm)
    with pytest.raises(ValueError, match=r"converted already, DTN at 'blocks\.0\.norm1': build"):
        convert_norm(model, "rmsnorm", layers=r"blocks\.0\.norm1")
    with pytest.raises(ValueError, match="with layers='zzz', got none"):
        convert_norm(model, "rmsnorm", layers="zzz")


def test_levit_is_converted_once() -> None:
    timm = pytest.importorskip("timm")
    model = convert_norm(timm.create_model("levit_128s"))
    with pytest.raises(ValueError, match=r"DTN at 'stages\.0\.blocks\.0\.attn\.qkv\.bn' and \d+ more: build"):
        convert_norm(model, "rmsnorm")


@pytest.mark.parametrize(
    ("layers", "advice"),
    [
        (
            "first10",
            r"blocks\.0\.norm2, .*; write 'authors', 'blocks', or a regular expression .*, layers=r'blocks\\\.0\\\.'$",
        ),
        ("Blocks ", r"; did you mean 'blocks'\?$"),
        ("author", r"; did you mean 'authors'\?$"),
        (lambda name, norm: False, r"; write a function that is true for some of them$"),
    ],
)
def test_layers_that_choose_nothing_come_with_advice(layers: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=r"\(not among the layers\): its norms are blocks\.0\.norm1, .*" + advice):
        convert_norm(small_vit(), layers=layers)


def test_all_norms_take_no_groups_where_the_new_norm_has_none() -> None:
    with pytest.raises(ValueError, match=r"expected an attention beside 'norm' .*or leave this norm out with layers"):
        convert_norm(small_vit(), layers="")
    model = convert_norm(small_vit(), "rmsnorm", layers="")
    assert isinstance(model.get_submodule("norm"), RMSNorm)


def test_a_config_is_no_name() -> None:
    with pytest.raises(
        ValueError, match=r"expected the name of a norm, got \{'type': 'dtn'\}: write its options behind"
    ):
        convert_norm(small_vit(), {"type": "dtn"})  # type: ignore[arg-type]


def test_tokens_come_before_norms_and_each_once() -> None:
    model = convert_norm(small_vit(), layers="blocks")
    with pytest.raises(ValueError, match="expected to convert the tokens of VisionTransformer before its norms"):
        convert_tokenization(model)
    once = convert_attention(convert_tokenization(small_vit()))
    with pytest.raises(ValueError, match="without Shifted Patch Tokenization, got one that is converted already"):
        convert_tokenization(once)
    with pytest.raises(ValueError, match="without Locality Self-Attention, got one that is converted already"):
        convert_attention(once)


def test_a_name_is_no_model() -> None:
    with pytest.raises(ValueError, match="expected a built model"):
        convert_norm("vit_tiny_patch16_224")  # type: ignore[arg-type]
