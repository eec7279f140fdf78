"""Locality Self-Attention against the authors' vectors and the definition with a softmax written out."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.layers import LocalitySelfAttention, locality_attention
from dtn_det.layers.lsa import diagonal_mask

AUTHORS_NAMES = {"to_qkv": "qkv", "to_out.0": "proj"}


def written_out(q, k, v, scale, bias=None, mask_diagonal=True):
    scores = (q * scale[:, None, None]) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if mask_diagonal:
        scores = scores.masked_fill(torch.eye(q.shape[-2], dtype=torch.bool), -torch.inf)
    return scores.softmax(dim=-1) @ v


def heads_of(size, *, heads=2, dim_head=3, batch=2, dtype=torch.float64):
    return [torch.randn(batch, heads, size, dim_head, dtype=dtype, requires_grad=True) for _ in range(3)]


def test_agrees_with_the_authors_module(shared_dir):
    data = np.load(shared_dir / "parity" / "lsa_h3.npz")
    meta = json.loads(str(data["meta"]))
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    layer = LocalitySelfAttention(x.shape[2], meta["heads"], meta["dim_head"], dtype=torch.float64)
    state = {k.removeprefix("param."): torch.tensor(data[k]) for k in data if k.startswith("param.")}
    for theirs, ours in AUTHORS_NAMES.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    layer.load_state_dict(state)
    torch.testing.assert_close(layer(x), y, rtol=1e-9, atol=1e-9)


@given(
    size=st.integers(2, 20),
    heads=st.integers(1, 4),
    dim_head=st.integers(1, 9),
    biased=st.booleans(),
    mask_diagonal=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition_with_all_gradients(size, heads, dim_head, biased, mask_diagonal, seed):
    torch.manual_seed(seed)
    inputs = heads_of(size, heads=heads, dim_head=dim_head)
    inputs.append(torch.randn(heads, dtype=torch.float64, requires_grad=True))
    if biased:
        inputs.append(torch.randn(1, heads, size, size, dtype=torch.float64, requires_grad=True))
    ours = locality_attention(*inputs, mask_diagonal=mask_diagonal)
    expected = written_out(*inputs, mask_diagonal=mask_diagonal)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_are_right():
    inputs = [*heads_of(4, batch=1), torch.randn(2, dtype=torch.float64, requires_grad=True)]
    assert torch.autograd.gradcheck(locality_attention, inputs)


def test_scale_one_over_the_root_without_the_mask_is_plain_attention():
    q, k, v = heads_of(9)
    scale = torch.full((2,), 3**-0.5, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(locality_attention(q, k, v, scale, mask_diagonal=False), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("magnitude", [1.0, 50.0])
def test_no_token_sees_its_own_value_in_any_dtype(dtype, magnitude):
    """The diagonal is the largest score by far, and yet a token's value reaches every output but its own."""
    q, _, v = (t.detach() for t in heads_of(6, dtype=dtype))
    q = magnitude * q
    scale = torch.ones(2, dtype=dtype)
    changed = v.clone()
    changed[:, :, 2] += 1
    before, after = (locality_attention(q, q, value, scale) for value in (v, changed))
    assert before.isfinite().all()
    assert torch.equal(before[:, :, 2], after[:, :, 2])
    if magnitude == 1:
        assert not torch.equal(before, after)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_token_that_is_alone_attends_to_itself(dtype, biased):
    q, k, v = heads_of(1, dtype=dtype)
    bias = torch.full((1, 2, 1, 1), -20.0, dtype=dtype, requires_grad=True) if biased else None
    out = locality_attention(q, k, v, torch.ones(2, dtype=dtype), bias)
    assert torch.equal(out, v)
    out.sum().backward()
    assert q.grad.isfinite().all()
    assert torch.equal(v.grad, torch.ones_like(v))


def test_a_token_whose_others_are_masked_attends_to_itself():
    q, k, v = heads_of(4)
    allowed = torch.ones(4, 4, dtype=torch.bool)
    allowed[1] = False
    allowed[1, 1] = True
    out = locality_attention(q, k, v, torch.ones(2, dtype=torch.float64), allowed)
    torch.testing.assert_close(out[:, :, 1], v[:, :, 1])
    torch.testing.assert_close(out[:, :, [0, 2, 3]], written_out(q, k, v, torch.ones(2))[:, :, [0, 2, 3]])


def test_window_masks_and_relative_positions_add_up():
    q, k, v = heads_of(6)
    relative = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    window = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    window[..., :3, 3:] = window[..., 3:, :3] = -100.0
    scale = torch.rand(2, dtype=torch.float64)
    out = locality_attention(q, k, v, scale, relative + window)
    torch.testing.assert_close(out, written_out(q, k, v, scale, relative + window))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 17])
def test_runs_under_autocast(dtype, size):
    layer = LocalitySelfAttention(12, 3)
    x = torch.randn(2, size, 12)
    relative = torch.randn(1, 3, size, size, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = layer(x, relative)
        out.float().sum().backward()
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), layer(x, relative), rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in [relative, *layer.parameters()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_queries_in_float32_beside_values_in_half_precision(dtype):
    """As where queries and keys are normalised under autocast."""
    q, k, v = heads_of(1, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        out = locality_attention(q, k, v.to(dtype), torch.ones(2))
    assert torch.equal(out, v.to(dtype))


def test_compiles_without_a_break():
    layer = LocalitySelfAttention(12, 3)
    x = torch.randn(2, 10, 12)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16


def test_dropout_in_training_alone():
    layer = LocalitySelfAttention(12, 3, attn_drop=0.5, proj_drop=0.5)
    x = torch.randn(2, 10, 12)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_state_holds_the_weights_and_the_options():
    layer = LocalitySelfAttention(12, 3, mask_diagonal=False)
    assert set(layer.state_dict()) == {"qkv.weight", "scale", "proj.weight", "proj.bias", "_extra_state"}
    assert torch.equal(layer.scale, torch.full((3,), 0.5))
    assert "num_heads=3, mask_diagonal=False" in repr(layer)


def test_mask_of_the_diagonal_is_on_the_diagonal():
    mask = diagonal_mask(3, torch.float32)
    assert torch.equal(mask != 0, torch.eye(3, dtype=torch.bool))
    assert mask.isfinite().all()


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="expected num_heads to be a positive divisor of dim, got dim=12 and num_he"):
        LocalitySelfAttention(12, 5)
    with pytest.raises(ValueError, match="expected dim_head of at least 1, got 0: leave it out for dim / num_heads"):
        LocalitySelfAttention(12, 3, 0)
    for name in ("attn_drop", "proj_drop"):
        with pytest.raises(ValueError, match=f"expected {name} from 0 to below 1, got 1.5: 0 drops nothing"):
            LocalitySelfAttention(12, 3, **{name: 1.5})
    q, k, v = heads_of(4)
    with pytest.raises(ValueError, match=r"expected scale of shape \(2,\), one per head, got \(3,\)"):
        locality_attention(q, k, v, torch.ones(3))
    with pytest.raises(ValueError, match="got 4 queries and 3 keys: pass mask_diagonal=False"):
        locality_attention(q, k[:, :, :3], v[:, :, :3], torch.ones(2))


def test_an_empty_batch_passes():
    assert LocalitySelfAttention(12, 3)(torch.empty(0, 5, 12)).shape == (0, 5, 12)
