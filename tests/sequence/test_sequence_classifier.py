"""Encoders of sequences: what their outputs do not depend on, what repeats, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmpretrain.structures", reason="the classifier is mmpretrain's kind")
pytest.importorskip("transformers", reason="the encoders are those of transformers")

from mmengine.registry import MODELS
from mmpretrain.structures import DataSample

import dtn_det  # noqa: F401  registers the classifier
from dtn_det.errors import InputError
from dtn_det.layers import DTN
from dtn_det.layers.token_norm import TokenNorm
from dtn_det.sequence.encoders import sinusoidal_positions
from dtn_det.sequence.listops import VOCABULARY
from dtn_det.sequence.parts import SequenceClassifier

ENCODERS: dict[str, dict[str, Any]] = {
    "transformer": {},
    "bigbird": {"block_size": 4, "num_random_blocks": 1},
    "reformer": {"chunk_length": 8, "num_buckets": 4},
}
SIZES = {"max_tokens": 37, "embed_dims": 16, "num_layers": 2, "num_heads": 4, "mlp_dims": 24, "drop_rate": 0.1}
NORMS = ("LN", "dtn", "bn", "in", "sn")


def build(name: str, norm: str = "dtn", **options: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    encoder = {"type": name, **SIZES, **ENCODERS[name], **options}
    model = MODELS.build(
        {
            "type": "SequenceClassifier",
            "encoder": encoder,
            "norm_cfg": {"type": norm, "init": "local"},
            "head_dims": 24,
        }
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TokenNorm):
                for parameter in module.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def sequences(number: int = 6, longest: int = 37) -> list[Tensor]:
    lengths = [longest, 1, *torch.randint(1, longest, (number - 2,)).tolist()]
    return [torch.randint(1, len(VOCABULARY), (length,)) for length in lengths]


def padded(batch: list[Tensor], more: int = 0) -> Tensor:
    return nn.functional.pad(nn.utils.rnn.pad_sequence(batch, batch_first=True), (0, more))


def samples(batch: list[Tensor]) -> list[DataSample]:
    return [DataSample().set_gt_label(len(sequence) % 10) for sequence in batch]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_outputs_depend_on_the_sequence_alone(name: str, norm: str) -> None:
    model = build(name, norm).eval()
    batch = sequences()
    logits = model(batch)
    assert logits.std() > 1e-3
    for more in (0, 1, 30):
        torch.testing.assert_close(model(padded(batch, more)), logits, atol=1e-6, rtol=0)
    order = torch.randperm(len(batch))
    torch.testing.assert_close(model([batch[index] for index in order]), logits[order], atol=1e-6, rtol=0)
    alone = torch.cat([model([sequence]) for sequence in batch])
    torch.testing.assert_close(alone, logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_norms_count_no_padding_in_training(name: str) -> None:
    model = build(name, "bn", drop_rate=0.0).train()
    seen: list[tuple[Tensor, Tensor]] = []
    for module in model.modules():
        if isinstance(module, TokenNorm):
            module.register_forward_pre_hook(
                lambda _, args, kwargs: seen.append((args[0], kwargs["mask"])), with_kwargs=True
            )
    batch = sequences()
    model(batch)
    assert len(seen) == 4
    for tokens, mask in seen:
        assert tokens.shape[:2] == mask.shape == (len(batch), model.length)
        assert mask.sum(1).tolist() == [len(sequence) + 1 for sequence in batch]


@pytest.mark.parametrize("name", ENCODERS)
def test_one_step_trains_the_whole_model(name: str) -> None:
    model = build(name).train()
    assert sum(isinstance(module, DTN) for module in model.modules()) == 4
    batch = sequences()
    loss = model(batch, samples(batch), mode="loss")["loss"]
    loss.backward()
    idle = {key for key, parameter in model.named_parameters() if parameter.grad is None and parameter.requires_grad}
    assert idle == set()
    positions = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(positions) == 1
    assert "position_embeddings" in positions[0]


@pytest.mark.parametrize("name", ENCODERS)
def test_mixed_precision(name: str) -> None:
    model = build(name).train()
    batch = sequences()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch, samples(batch), mode="loss")["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ENCODERS)
def test_training_repeats(name: str) -> None:
    batch = sequences()

    def gradients(model: nn.Module) -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        model(batch, samples(batch), mode="loss")["loss"].backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    model, twin = build(name, drop_rate=0.5).train(), build(name, drop_rate=0.5).train()
    first = gradients(model)
    for ours, theirs in zip(first, gradients(twin), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_reformers_dropout_goes_on_after_a_checkpoint() -> None:
    model = build("reformer", drop_rate=0.5).train()
    batch = sequences()
    state = copy.deepcopy(model.state_dict())

    def losses(model: nn.Module) -> list[float]:
        torch.manual_seed(1)  # of the dropout before the first layer
        return [model(batch, samples(batch), mode="loss")["loss"].item() for _ in range(2)]

    before = losses(model)
    assert before[0] != before[1]
    other = build("reformer", drop_rate=0.5).train()
    assert losses(model) != before
    other.load_state_dict(state)
    assert losses(other) == before


@torch.no_grad()
def test_reformer_leaves_the_generators_in_evaluation() -> None:
    model = build("reformer").eval()
    batch = sequences()
    before = torch.get_rng_state()
    logits = model(batch)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    torch.testing.assert_close(model(batch), logits, atol=0, rtol=0)
    other = build("reformer", hash_seed=1).eval()
    assert not torch.allclose(other(batch), logits)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_models_can_be_copied_and_pickled(name: str) -> None:
    model = build(name).eval()
    batch = sequences()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(batch), model(batch), atol=0, rtol=0)


@torch.no_grad()
def test_predictions() -> None:
    model = build("transformer").eval()
    batch = sequences()
    given = samples(batch)
    predicted = model(batch, given, mode="predict")
    scores = model(batch).softmax(dim=1)
    torch.testing.assert_close(torch.stack([sample.pred_score for sample in predicted]), scores)
    assert [int(sample.pred_label) for sample in predicted] == scores.argmax(dim=1).tolist()
    assert [int(sample.gt_label) for sample in predicted] == [len(sequence) % 10 for sequence in batch]
    assert len(model(batch, mode="predict")) == len(batch)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_positions(50, 6)
    assert table.shape == (50, 6)
    torch.testing.assert_close(table[7, 0], torch.tensor(7.0).sin())
    torch.testing.assert_close(table[7, 3], (torch.tensor(7.0) / 10000 ** (2 / 6)).cos())
    model = build("bigbird")
    torch.testing.assert_close(
        model.encoder.embeddings.position_embeddings.weight, sinusoidal_positions(40, 16), atol=0, rtol=0
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([torch.ones(38, dtype=torch.long)], "expected sequences of 1 to 37 tokens, got some of 38 to 38: raise"),
        (torch.zeros(2, 3, dtype=torch.long), "expected sequences of 1 to 37 tokens, got some of 0 to 0"),
        (torch.tensor([[1, 0, 2]]), "expected padding behind the tokens of a sequence, got 0 among them"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("transformer")(inputs)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="expected mode tensor, predict, or loss with data_samples, got 'loss'"):
        build("transformer")(sequences(), mode="loss")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({}, "expected encoder with a type"),
        ({"type": "longformer"}, "expected an encoder out of transformer, bigbird, reformer, got 'longformer'"),
        ({"type": "transformer", "block_size": 4}, "expected options that transformer has, got block_size"),
        ({"type": "bigbird", "max_tokens": 100}, "expected sequences of at least 705 tokens for blocks of 64 and 3"),
        ({"type": "transformer", "num_heads": 7}, "expected num_heads that divide embed_dims, got 7 and 512"),
        ({"type": "reformer", "num_buckets": 3}, "expected num_buckets to be even, .*, got 3: take 4"),
        ({"type": "reformer", "hash_seed": -1}, "expected hash_seed to be an integer of at least 0, got -1: change it"),
        ({"type": "reformer", "hash_seed": None}, "expected hash_seed to be an integer of at least 0, got None"),
    ],
)
def test_encoders_that_do_not_fit(encoder: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceClassifier(encoder)


@pytest.mark.parametrize("value", [0, -4, 2.5, "4", True, None])
@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        *(("transformer", name) for name in SIZES if name != "drop_rate"),
        *(("bigbird", name) for name in ("block_size", "num_random_blocks")),
        *(("reformer", name) for name in ("chunk_length", "num_buckets", "num_hashes")),
    ],
)
def test_numbers_that_are_no_sizes(encoder: str, name: str, value: Any) -> None:
    message = rf"expected {name} to be an integer of at least 1, got {value!r}: change it in the config"
    with pytest.raises(InputError, match=message):
        SequenceClassifier({"type": encoder, name: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0, float("nan"), "0.1"])
def test_dropout_out_of_range(value: Any) -> None:
    with pytest.raises(
        InputError, match=rf"expected drop_rate from 0 to below 1, got {value!r}: change it in the conf"
    ):
        SequenceClassifier({"type": "transformer", "drop_rate": value})


@pytest.mark.parametrize("name", ["num_classes", "head_dims"])
def test_heads_of_no_size(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"expected {name} to be an integer of at least 1, got 0: change it in the conf"
    ):
        SequenceClassifier({"type": "transformer"}, **{name: 0})
