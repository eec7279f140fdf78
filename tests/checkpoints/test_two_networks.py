"""Checkpoints with several networks: the one that is meant is loaded and told, or all are refused with their names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.checkpoints.backbone_keys import backbone_weights
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.state_dict import choose_weights
from dtn_det.errors import CheckpointError

State = dict[str, Tensor]


def network(seed: int, *widths: int) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = widths or (8, 8, 4)
    return nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(widths)))


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


A, OTHER = network(1).state_dict(), network(2).state_dict()
MEAN = {name: value + 0.01 * torch.randn(value.shape) for name, value in A.items()}
DEEPER = network(3, 8, 8, 4, 4).state_dict()


def load(content: Any, folder: Path, weights: Any = None) -> tuple[State, dict[str, str], str]:
    """The weights that were loaded, the facts for the store and the remarks."""
    torch.save(content, folder / "a.pth")
    model = network(0)
    loaded = load_weights(model, str(folder / "a.pth"), weights=weights)
    return model.state_dict(), dict(loaded.facts), " ".join(remark.sentence() for remark in loaded.remarks)


def same(found: State, state: State) -> bool:
    return all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("meant", "aside", "other"),
    [
        ("architecture.", "teacher.", OTHER),  # mmrazor
        ("architecture.", "teacher.", A | MEAN),  # of the same start: still no average without a student
        ("architecture.", "teacher.", DEEPER),  # a teacher with more blocks, whose first have the same shapes
        ("student.", "teacher.", OTHER),
        ("student.", "teacher.", DEEPER),
        ("model.", "teacher_model.", OTHER),
        ("", "teacher.", OTHER),
    ],
)
def test_the_teacher_of_a_distillation_is_left_out_and_told(
    meant: str, aside: str, other: State, turned: bool, tmp_path: Path
) -> None:
    sets = [under(meant, A), under(aside, other)]
    content = {"state_dict": {**sets[turned], **sets[not turned]}}
    found, facts, told = load(content, tmp_path)
    assert same(found, A)
    assert facts == {"weights": f"{meant.rstrip('.') or 'names of the model'}, not {aside.rstrip('.')}"}
    assert f"1 other set of weights is in the file, under '{aside}', and was left out: those under " in told
    with pytest.raises(CheckpointError, match=r"expected an average of the weights \(EMA\)"):
        load(content, tmp_path, "ema")


def test_a_teacher_is_taken_if_it_alone_fits_and_is_no_average(tmp_path: Path) -> None:
    content = {**under("architecture.", network(1, 8, 5, 4).state_dict()), **under("teacher.", A)}
    found, facts, told = load(content, tmp_path)
    assert same(found, A)
    assert facts == {"weights": "teacher, not architecture"}
    assert "(EMA)" not in told


def test_a_student_without_a_teacher_is_a_prefix(tmp_path: Path) -> None:
    found, facts, told = load(under("architecture.", A), tmp_path)
    assert (same(found, A), facts, told) == (True, {}, "")


@pytest.mark.parametrize(
    ("plain", "average", "default"),
    [
        ("student.", "teacher.", "ema"),  # mean teacher, SoftTeacher
        ("student.module.backbone.", "teacher.backbone.", "ema"),  # DINO, iBOT
        ("online.", "target.", "plain"),  # BYOL
        ("net.", "target_net.", "plain"),
        ("module.encoder_q.", "module.encoder_k.", "plain"),  # MoCo
        ("base_encoder.", "momentum_encoder.", "plain"),  # MoCo v3
        ("model.", "ema_model.", "ema"),
        ("generator.", "generator_ema.", "ema"),
    ],
)
def test_averages_by_evidence(plain: str, average: str, default: str, tmp_path: Path) -> None:
    content = {**under(average, MEAN), **under(plain, A)}
    sets = {"plain": A, "ema": MEAN}
    for weights in (None, "plain", "ema"):
        found, facts, told = load(content, tmp_path, weights)
        kind = weights or default
        assert same(found, sets[kind])
        assert facts["weights"].startswith(kind)
        assert "1 state dict of two was taken, the " in told


def test_a_sign_of_a_distillation_outweighs_likeness(tmp_path: Path) -> None:
    content = {**under("student.", A), **under("teacher.", MEAN), "distiller.loss_kd.scale": torch.ones(1)}
    found, facts, _ = load(content, tmp_path)
    assert (same(found, A), facts) == (True, {"weights": "student, not teacher"})


@pytest.mark.parametrize(("first", "second"), [("generator.", "discriminator."), ("actor.", "critic."), ("a.", "b.")])
def test_networks_of_which_none_is_meant_are_refused(first: str, second: str, tmp_path: Path) -> None:
    content = {**under(first, A), **under(second, OTHER)}
    with pytest.raises(CheckpointError) as error:
        load(content, tmp_path)
    assert f"under '{first}' and '{second}', and nothing shows which one is meant: write the one" in str(error.value)
    # The advice of the message.
    chosen = {name.removeprefix(second): value for name, value in content.items() if name.startswith(second)}
    assert same(load(chosen, tmp_path)[0], OTHER)


def test_the_shapes_and_the_names_choose_among_unknown_networks(tmp_path: Path) -> None:
    critic = under("critic.", network(2, 8, 8, 1).state_dict())
    found, facts, _ = load({**critic, **under("actor.", A)}, tmp_path)
    assert (same(found, A), facts) == (True, {"weights": "actor, not critic"})
    found, facts, _ = load({**under("b.", DEEPER), **under("a.", A)}, tmp_path)
    assert (same(found, A), facts) == (True, {"weights": "a, not b"})


def test_a_second_branch_beside_the_names_of_the_model_is_unexpected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"4 unexpected \(branch2\.0\.weight, "):
        load({**A, **under("branch2.", OTHER)}, tmp_path)
    found, facts, _ = load({**A, **under("momentum_encoder.", MEAN)}, tmp_path)
    assert (same(found, A), facts) == (True, {"weights": "plain (names of the model)"})


def test_two_names_of_one_module_are_one_network(tmp_path: Path) -> None:
    content = {**under("net.", A), **under("online_encoder.net.", A), **under("target_encoder.net.", MEAN)}
    assert same(load(content, tmp_path)[0], A)
    assert load({**under("net.", A), **under("model.", A)}, tmp_path)[1] == {}


@pytest.mark.parametrize(
    ("content", "place", "kind", "aside"),
    [
        ({"teacher": MEAN, "student": under("module.", A)}, "teacher", "ema", ()),
        ({"teacher": OTHER, "student": A}, "student", None, ("teacher",)),
        ({"teacher": OTHER, "model": A}, "model", None, ("teacher",)),
        ({"teacher": A}, "teacher", None, ()),
        ({"teacher_net": OTHER, "student_net": A}, "student_net", None, ("teacher_net",)),
        ({"target": MEAN, "online": A}, "online", "plain", ()),
        ({"state_dict": A, "model": A}, "state_dict", None, ()),
    ],
)
def test_networks_under_keys(content: Any, place: str, kind: str | None, aside: tuple[str, ...]) -> None:
    found = choose_weights(content)
    assert (found.place, found.kind, found.aside) == (place, kind, aside)


@pytest.mark.parametrize("keys", [("actor", "critic"), ("model", "net"), ("encoder", "decoder")])
def test_keys_of_which_none_is_meant_are_refused(keys: tuple[str, str]) -> None:
    with pytest.raises(CheckpointError, match=rf"'{keys[0]}'.*'{keys[1]}'.*: write the one that is meant to a file"):
        choose_weights({keys[0]: A, keys[1]: OTHER})


SWIN = "layers.0.blocks.0.attn.qkv.weight"


def test_a_backbone_within_several_networks() -> None:
    matrix, unrelated = torch.eye(4), torch.ones(4, 4).tril(-1)
    found = backbone_weights({f"teacher.{SWIN}": unrelated, f"architecture.backbone.{SWIN}": matrix}, "swin")
    assert torch.equal(found.state[SWIN], matrix)
    assert "under 'teacher.', and was left out" in found.remarks("a.pth")[0].sentence()
    with pytest.raises(CheckpointError, match=r"under 'a\.' and 'b\.', and nothing .*init_cfg=dict\(type='Pretra"):
        backbone_weights({f"a.{SWIN}": matrix, f"b.{SWIN}": unrelated}, "swin")
