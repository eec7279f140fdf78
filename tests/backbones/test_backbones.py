"""What the three backbones have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dtn_det.layers import DTN

pytest.importorskip("mmdet")

Build = Callable[..., nn.Module]
SWIN, PVT, PVTV2 = "DTNSwinTransformer", "DTNPyramidVisionTransformer", "DTNPyramidVisionTransformerV2"
WIDTHS = {SWIN: (8, 16, 32, 64), PVT: (8, 16, 40, 64), PVTV2: (8, 16, 40, 64)}


def stage_modules(backbone: nn.Module) -> nn.ModuleList:
    modules: nn.ModuleList = backbone.stages if hasattr(backbone, "stages") else backbone.layers
    return modules


def dtn_norms(module: nn.Module) -> dict[str, DTN]:
    return {name: child for name, child in module.named_modules() if isinstance(child, DTN)}


def total(outs: list[Tensor]) -> Tensor:
    """A scalar that weighs every output differently, so that no gradient cancels by symmetry."""
    return torch.stack([(out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs]).sum()


def gradients(backbone: nn.Module, x: Tensor) -> dict[str, Tensor | None]:
    backbone.zero_grad()
    total(backbone(x)).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in backbone.named_parameters()}


def test_layernorm_twin_is_mmdetections_backbone(build: Build, backbone_name: str) -> None:
    arguments = {} if backbone_name == SWIN else {"embed_norm_eps": None}
    twin = build(backbone_name, dtn_stages=(), **arguments)
    parent = build(backbone_name.removeprefix("DTN"))
    assert not dtn_norms(twin)
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in parent.named_parameters()]
    for name, value in parent.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), f"{name} starts elsewhere with the same seed"
    x = torch.randn(2, 3, 64, 96)
    for ours, theirs in zip(twin(x), parent(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_twins_start_from_the_same_numbers(build: Build, backbone_name: str) -> None:
    ln, dtn = (build(backbone_name, **kwargs) for kwargs in ({"dtn_stages": ()}, {}))
    for twin in (ln, dtn):
        torch.manual_seed(1)
        twin.init_weights()
    for name, value in ln.state_dict().items():
        assert torch.equal(value, dtn.state_dict()[name]), name


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 300), (40, 39), (7, 90), (1, 1)])
def test_any_image_size(build: Build, backbone_name: str, size: tuple[int, int]) -> None:
    outs = build(backbone_name)(torch.randn(1, 3, *size))
    assert [out.shape[1] for out in outs] == list(WIDTHS[backbone_name])
    assert all(bool(out.isfinite().all()) for out in outs)
    # PVT's patches do not overlap and are not padded: what is left over at the edge is cut off.
    height, width = size if backbone_name == SWIN else (max(side, 32) for side in size)
    for level, out in enumerate(outs):
        stride = 2 ** (level + 2)
        expected = [side // stride if backbone_name == PVT else -(-side // stride) for side in (height, width)]
        assert list(out.shape[2:]) == expected


def test_dtn_is_in_the_chosen_stages_alone(build: Build, backbone_name: str) -> None:
    for index, stage in enumerate(stage_modules(build(backbone_name, dtn_stages=(1, 2)))):
        names = set(dtn_norms(stage))
        if index in (1, 2):
            assert names
            assert {name.rsplit(".", 1)[1] for name in names} == {"norm1", "norm2"}
        else:
            assert not names


def test_default_stages_and_groups(build: Build, backbone_name: str) -> None:
    groups = [{norm.num_groups for norm in dtn_norms(stage).values()} for stage in stage_modules(build(backbone_name))]
    assert groups == ([{1}, {2}, {2}, {4}] if backbone_name == SWIN else [{4}, {4}, {5}, set()])


@pytest.mark.parametrize(("num_groups", "expected"), [(2, [{2}, {2}, {2}, {2}]), ([1, 2, 4, 8], [{1}, {2}, {4}, {8}])])
def test_groups_of_the_users_choice(build: Build, backbone_name: str, num_groups: object, expected: list) -> None:
    backbone = build(backbone_name, dtn_cfg={"num_groups": num_groups}, dtn_stages=(0, 1, 2, 3))
    assert [{norm.num_groups for norm in dtn_norms(stage).values()} for stage in stage_modules(backbone)] == expected


def test_groups_of_the_attention_heads(build: Build) -> None:
    stages = stage_modules(build(PVT, dtn_cfg={"num_groups": "heads"}, dtn_stages=(0, 1, 2, 3)))
    assert [{norm.num_groups for norm in dtn_norms(stage).values()} for stage in stages] == [{1}, {2}, {5}, {8}]


def test_keyword_arguments_reach_the_layers(build: Build, backbone_name: str) -> None:
    cfg = {"head_rms": False, "unbiased": False, "only_var": True, "eps": 1e-3}
    for norm in dtn_norms(build(backbone_name, dtn_cfg=cfg)).values():
        assert (norm.head_rms, norm.unbiased, norm.only_var, norm.eps) == (False, False, True, 1e-3)
    for norm in dtn_norms(build(backbone_name, dtn_cfg={"init": "layernorm"})).values():
        assert norm.init == "layernorm"


def test_norm_cfg_gives_eps_and_trainability(build: Build, backbone_name: str) -> None:
    norms = dtn_norms(build(backbone_name, norm_cfg={"type": "LN", "eps": 1e-4, "requires_grad": False}))
    assert norms
    for norm in norms.values():
        assert norm.eps == 1e-4
        assert not any(p.requires_grad for p in norm.parameters())


def test_init_weights_keeps_the_start_of_dtn(build: Build, backbone_name: str) -> None:
    backbone = build(backbone_name)
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    with torch.no_grad():
        for name, norm in dtn_norms(backbone).items():
            norm.weight.fill_(3.0)
            assert not torch.equal(before[f"{name}.weight"], norm.weight)
    backbone.init_weights()
    for name, p in backbone.named_parameters():
        if any(name.startswith(f"{norm}.") for norm in dtn_norms(backbone)):
            assert torch.equal(p, before[name]), name
    assert any(not torch.equal(p, before[name]) for name, p in backbone.named_parameters() if "norm" not in name)


def test_every_parameter_gets_a_gradient(build: Build, backbone_name: str) -> None:
    for name, grad in gradients(build(backbone_name), torch.randn(2, 3, 65, 97)).items():
        assert grad is not None, name
        # The bias of the kernel cancels by definition.
        assert name.endswith("pos_proj.bias") or bool((grad != 0).any()), name


def test_checkpointing_recomputes_and_changes_nothing(build: Build, backbone_name: str) -> None:
    plain, checkpointed = (build(backbone_name, with_cp=with_cp).double().train() for with_cp in (False, True))
    calls = dict.fromkeys(dtn_norms(checkpointed), 0)
    for name, norm in dtn_norms(checkpointed).items():

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        norm.register_forward_hook(count)
    # Two grids before one backward pass: each recomputation must see its own.
    x, y = torch.randn(1, 3, 65, 97).double(), torch.randn(1, 3, 48, 40).double()
    for backbone in (plain, checkpointed):
        (total(backbone(x)) + total(backbone(y))).backward()
    assert set(calls.values()) == {4}
    for (name, p), q in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_no_recomputation_without_gradients(build: Build, backbone_name: str) -> None:
    backbone = build(backbone_name, with_cp=True)
    with torch.no_grad():
        outs = backbone(torch.randn(1, 3, 64, 64))
    assert not any(out.requires_grad for out in outs)


@pytest.mark.parametrize("frozen", [0, 1, 2, 4])
def test_frozen_stages(build: Build, backbone_name: str, frozen: int) -> None:
    backbone = build(backbone_name, frozen_stages=frozen)
    before = {name: p.requires_grad for name, p in backbone.named_parameters()}
    assert backbone.train() is backbone
    # Frozen before the first train(), as DistributedDataParallel needs it.
    assert before == {name: p.requires_grad for name, p in backbone.named_parameters()}
    patch_embed = backbone.patch_embed if backbone_name == SWIN else backbone.layers[0][0]
    assert not patch_embed.training
    assert not any(p.requires_grad for p in patch_embed.parameters())
    for index, stage in enumerate(stage_modules(backbone)):
        if index < frozen:
            assert not any(module.training for module in stage.modules())
            assert not any(p.requires_grad for p in stage.parameters())
        else:
            names = [f"{name}.{key}" for name, norm in dtn_norms(stage).items() for key, _ in norm.named_parameters()]
            parameters = dict(stage.named_parameters())
            assert all(parameters[name].requires_grad for name in names)
    if frozen < 4:
        grads = gradients(backbone, torch.randn(1, 3, 64, 64))
        assert {name for name, grad in grads.items() if grad is None} == {n for n, needs in before.items() if not needs}


def test_out_indices(build: Build, backbone_name: str) -> None:
    x = torch.randn(1, 3, 64, 64)
    every, some = build(backbone_name), build(backbone_name, out_indices=(1, 3))
    for ours, theirs in zip(some(x), [every(x)[i] for i in (1, 3)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_train_and_eval_return_the_backbone(build: Build, backbone_name: str) -> None:
    backbone = build(backbone_name)
    assert backbone.eval() is backbone
    assert not backbone.training
    assert backbone.train() is backbone
    assert backbone.training


def test_bfloat16_autocast_stays_close_to_float32(build: Build, backbone_name: str) -> None:
    # Width 32 as published: torch 2.12's bfloat16 convolution is plainly wrong for 8 and 16 channels with a kernel as
    # large as its stride on some CPUs, which hits spatial reduction.
    backbone = build(backbone_name, embed_dims=32).train()
    x = torch.randn(2, 3, 65, 97)
    exact = backbone(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outs = backbone(x)
    for out, reference in zip(outs, exact, strict=True):
        assert (out.float() - reference).norm() < 0.03 * reference.norm()
    total(outs).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in backbone.parameters())


def test_copies_are_independent(build: Build, backbone_name: str) -> None:
    backbone = build(backbone_name)
    duplicate = copy.deepcopy(backbone)
    x = torch.randn(1, 3, 64, 64)
    before = backbone(x)
    for p in duplicate.parameters():
        nn.init.normal_(p)
    for out, reference in zip(backbone(x), before, strict=True):
        torch.testing.assert_close(out, reference, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtn_stages": (0, 4)}, r"expected dtn_stages to be distinct stage indices from 0 to 3, got \(0, 4\)"),
        ({"dtn_stages": (-1,)}, r"expected dtn_stages to be distinct stage indices from 0 to 3, got \(-1,\)"),
        ({"dtn_stages": (1, 1)}, r"expected dtn_stages to be distinct stage indices from 0 to 3, got \(1, 1\)"),
        ({"dtn_cfg": {"groups": 4}}, r"expected dtn_cfg to have keys out of \[.*'num_groups'.*\], got groups"),
        ({"dtn_cfg": {"num_groups": 3}}, r"got 3 groups for stage 0 of width 8: set .* divisors of \(8, 16, "),
        ({"dtn_cfg": {"num_groups": (2, 2, 7, 2)}}, r"got 7 groups for stage 2 of width (32|40)"),
        ({"dtn_cfg": {"num_groups": (2, 2)}}, r"expected num_groups to be an int, 'heads' or 4 ints .*, got \(2, 2\)"),
        ({"dtn_cfg": {"num_groups": "head"}}, r"expected num_groups to be an int, 'heads' or 4 ints .*, got 'head'"),
        ({"dtn_cfg": {"num_groups": 0}}, r"got 0 groups for stage 0 of width 8"),
        ({"dtn_cfg": {"init": "none"}}, r"expected init to be one of"),
        ({"norm_cfg": {"type": "GN", "num_groups": 2}}, r"expected norm_cfg to build a LayerNorm .*, got GroupNorm"),
        ({"frozen_stages": 5}, r"expected frozen_stages from -1 to 4, got 5"),
        ({"frozen_stages": -2}, r"expected frozen_stages from -1 to 4, got -2"),
    ],
)
def test_arguments_that_do_not_fit(build: Build, backbone_name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(backbone_name, **arguments)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("dtn_stagess", "did you mean 'dtn_stages'"),
        ("drop_path_rat", "did you mean 'drop_path_rate'"),
        ("zzz", "it has .*dtn_cfg, dtn_stages, .*out_indices"),
    ],
)
def test_unknown_arguments_name_our_class_and_the_near_match(
    build: Build, backbone_name: str, argument: str, hint: str
) -> None:
    with pytest.raises(TypeError, match=rf"expected arguments of {backbone_name}, got '{argument}': {hint}"):
        build(backbone_name, **{argument: 1})
