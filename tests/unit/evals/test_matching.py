"""Matching of latents and true features: one-to-one, signs and scales do not count."""

import pytest
import torch

from saelab.evals.common.matching import cosines, match


def test_permuted_flipped_and_scaled_features_are_found_again():
    features = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0][
        :8
    ]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    scales = torch.tensor([1.0, -2.0, 0.5, -1.0, 3.0, 1.0, -0.1, 7.0]).unsqueeze(1)
    found = match(features[order] * scales, features)
    assert torch.equal(order[found.latent], torch.arange(8))
    torch.testing.assert_close(found.cosine, torch.ones(8))


def test_a_latent_stands_for_one_feature_only():
    """Both latents are nearest to feature 0 (.9 and .8); the best sum gives feature 1 to the one
    that loses least.
    """
    features = torch.eye(3)
    directions = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.6, 0.0]])
    found = match(directions, features)
    assert found.latent.tolist() == [0, 1, -1]
    torch.testing.assert_close(found.cosine, torch.tensor([0.9 / 0.82**0.5, 0.6, 0.0]))


def test_the_best_sum_is_not_the_greedy_one():
    """Greedy takes latent 0 for feature 0 (.66) and is left with .10; the assignment takes .62 and
    .64.
    """
    features = torch.eye(4)[:2]
    directions = torch.tensor([[0.66, 0.62, 0.0, 0.42], [0.64, 0.1, 0.0, 0.76]])
    assert match(directions, features).latent.tolist() == [1, 0]


def test_more_latents_than_features_leaves_latents_over():
    features = torch.eye(5)[:2]
    found = match(torch.eye(5), features)
    assert found.latent.tolist() == [0, 1]
    assert found.cosine.tolist() == [1, 1]


def test_zero_rows_have_cosine_zero():
    features = torch.eye(3)
    directions = torch.stack([torch.zeros(3), 2 * features[1]])
    assert cosines(directions, features).tolist() == [[0, 0, 0], [0, 1, 0]]
    found = match(directions, features)
    assert found.cosine.tolist() == [0, 1, 0]
    assert match(torch.zeros(3, 3), features).cosine.tolist() == [0, 0, 0]


def test_cosines_keep_their_sign():
    assert cosines(torch.tensor([[-2.0, 0.0]]), torch.eye(2)).tolist() == [[-1, 0]]


def test_random_directions_are_at_chance():
    """The expected |cosine| of two random directions of width D is sqrt(2 / (pi D)); the best of a
    few is not near 1.
    """
    generator = torch.Generator().manual_seed(0)
    found = match(
        torch.randn(30, 256, generator=generator), torch.randn(30, 256, generator=generator)
    )
    assert 0.05 < found.cosine.mean() < 0.2


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(
        ValueError, match=r"directions are \[4, 3\] and features \[2, 5\].*one width D"
    ):
        match(torch.zeros(4, 3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="not finite"):
        match(torch.full((2, 3), float("nan")), torch.eye(3))
