"""What is said about attention, against attention whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dtn_det.inspection.attention import AttentionPiece, Tokens, grid_tokens, look_at_attention, window_tokens

CPU = torch.device("cpu")


def piece(weights: torch.Tensor, grid: tuple[int, int], **kwargs: bool) -> AttentionPiece:
    tokens = grid_tokens(grid, CPU)
    return AttentionPiece(
        weights[None], tokens, tokens, torch.ones(1, 1, weights.shape[-1], dtype=torch.bool), **kwargs
    )


def everywhere(grid: tuple[int, int]) -> torch.Tensor:
    return torch.ones(grid, dtype=torch.bool)


def test_a_head_that_looks_at_itself_and_one_that_looks_one_to_the_right() -> None:
    right = torch.roll(torch.eye(4), 1, dims=1)
    right[3] = torch.eye(4)[3]
    found = look_at_attention([piece(torch.stack([torch.eye(4), right]), (1, 4))], (1, 4), everywhere((1, 4)))
    assert found.distance.tolist() == [0.0, 0.75]
    # Of the 16 pairs, 6 are 1 apart, 4 are 2 apart and 2 are 3 apart.
    assert found.uniform_distance == pytest.approx(20 / 16)
    assert found.received[0].tolist() == [[1, 1, 1, 1]]
    assert found.received[1].tolist() == [[0, 1, 1, 2]]
    assert found.on_map.tolist() == [1, 1]
    assert found.class_map is None


def test_distances_are_euclidean() -> None:
    weights = torch.zeros(1, 20, 20)
    weights[0, :, 0] = 1
    found = look_at_attention([piece(weights, (4, 5))], (4, 5), everywhere((4, 5)))
    expected = np.hypot(*np.indices((4, 5))).mean()
    assert found.distance[0] == pytest.approx(expected)
    assert found.received[0, 0, 0] == pytest.approx(20)


def test_uniform_attention_is_neither_much_nor_little() -> None:
    weights = torch.full((2, 12, 12), 1 / 12)
    found = look_at_attention([piece(weights, (3, 4))], (3, 4), everywhere((3, 4)))
    np.testing.assert_allclose(found.received, 1, rtol=1e-6)
    np.testing.assert_allclose(found.distance, found.uniform_distance, rtol=1e-6)


def test_padding_is_left_out_and_counted() -> None:
    # One window of 2 x 2 on a map of 2 x 1: the right column is padding.
    tokens = window_tokens((2, 1), 2, 0, CPU)
    weights = torch.tensor([0.1, 0.5, 0.3, 0.1]).expand(1, 1, 4, 4)
    allowed = torch.ones(1, 4, 4, dtype=torch.bool)
    found = look_at_attention([AttentionPiece(weights, tokens, tokens, allowed)], (2, 1), everywhere((2, 1)))
    assert found.on_map[0] == pytest.approx(0.4)
    # A quarter of what is left goes up and three quarters down.
    assert found.distance[0] == pytest.approx((0.75 + 0.25) / 2)
    np.testing.assert_allclose(found.received[0], [[0.5], [1.5]], rtol=1e-6)


def test_what_a_mask_forbids_is_not_expected() -> None:
    allowed = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)[None]
    tokens = grid_tokens((1, 4), CPU)
    weights = (allowed / 2.0)[None]
    found = look_at_attention([AttentionPiece(weights, tokens, tokens, allowed)], (1, 4), everywhere((1, 4)))
    assert found.uniform_distance == pytest.approx(0.5)
    np.testing.assert_allclose(found.received, 1)


def test_only_queries_of_the_image_count() -> None:
    weights = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])[None]
    inside = torch.tensor([[True, True, False, False]])
    found = look_at_attention([piece(weights, (1, 4))], (1, 4), inside)
    assert found.distance[0] == pytest.approx(0.5)


def test_pieces_add_up() -> None:
    weights = torch.rand(3, 12, 12, dtype=torch.float64).softmax(-1)
    whole = piece(weights, (3, 4))
    parts = [
        AttentionPiece(
            whole.weights[:, :, rows],
            Tokens(whole.queries.position[:, rows], whole.queries.place[:, rows]),
            whole.keys,
            whole.allowed,
        )
        for rows in (slice(0, 5), slice(5, 12))
    ]
    one, two = (look_at_attention(some, (3, 4), everywhere((3, 4))) for some in ([whole], parts))
    np.testing.assert_allclose(two.distance, one.distance)
    np.testing.assert_allclose(two.received, one.received)
    assert two.uniform_distance == pytest.approx(one.uniform_distance)


def test_the_class_token() -> None:
    patches = grid_tokens((1, 3), CPU)
    tokens = Tokens(
        torch.nn.functional.pad(patches.position, (0, 0, 1, 0)),
        torch.nn.functional.pad(patches.place, (1, 0), value=-1),
    )
    weights = torch.full((1, 1, 4, 4), 0.25)
    weights[0, 0, 0] = torch.tensor([0.6, 0.1, 0.1, 0.2])
    allowed = torch.ones(1, 1, 4, dtype=torch.bool)
    found = look_at_attention(
        [AttentionPiece(weights, tokens, tokens, allowed, class_first=True)], (1, 3), everywhere((1, 3))
    )
    assert found.class_map is not None
    np.testing.assert_allclose(found.class_map, [[[0.75, 0.75, 1.5]]], rtol=1e-6)
    # The class token is no query of the map, and its column is left out.
    assert found.on_map[0] == pytest.approx(0.75)
    np.testing.assert_allclose(found.received, 1, rtol=1e-6)


def test_no_token_inside() -> None:
    weights = torch.eye(4)[None]
    with pytest.raises(ValueError, match="expected tokens inside the image, got none: name a larger image"):
        look_at_attention([piece(weights, (1, 4))], (1, 4), ~everywhere((1, 4)))
