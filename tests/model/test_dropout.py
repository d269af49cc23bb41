"""The cheap dropout is dropout: its share, its scale, its gradient, its seed."""

from __future__ import annotations

import pytest
import torch

from mert_core.model.kernels import dropout, keep_mask
from mert_core.model.layers import _attention


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_and_scale(probability: float) -> None:
    torch.manual_seed(1)
    dropped = dropout(torch.ones(1000, 997), probability, training=True)
    kept = dropped != 0
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=0.002)
    assert torch.unique(dropped[kept]).tolist() == pytest.approx([1 / (1 - probability)])
    for axis in (0, 1):  # no row or column is treated otherwise
        assert (kept.float().mean(axis) - (1 - probability)).abs().max() < 0.1
    neighbours = (kept[:, 1:] == kept[:, :-1]).float().mean().item()
    assert neighbours == pytest.approx(probability**2 + (1 - probability) ** 2, abs=0.003)


def test_the_seed_decides() -> None:
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(keep_mask(torch.Size([50, 3]), 0.5))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_it_is_off_outside_of_training_and_at_zero() -> None:
    values = torch.randn(5)
    assert dropout(values, 0.5, training=False) is values
    assert dropout(values, 0.0, training=True) is values


def test_gradients_pass_where_values_do() -> None:
    values = torch.randn(40, 40).requires_grad_()
    dropped = dropout(values, 0.25, training=True)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, (dropped != 0) / 0.75)


def test_attention_with_dropout_is_right_on_average() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    keys = torch.tensor([True] * 5 + [False])[None, None, None]
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    mean = torch.stack([_attention(query, key, value, keys, 0.1, 1.0) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, exact, atol=0.05, rtol=0)
