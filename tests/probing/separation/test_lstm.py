from __future__ import annotations

import torch
from torch import Tensor, nn

from mert_core.probing.separation.model import bidirectional

HIDDEN, WIDTH = 5, 7


def _weights(layer: nn.LSTM) -> tuple[Tensor, Tensor, Tensor]:
    """One torch layer's weights in our order: torch has input, forget, new content, output."""
    inputs, biases, recurrent = [], [], []
    for direction in ("", "_reverse"):
        parts = [
            dict(layer.named_parameters())[f"{name}_l0{direction}"] for name in ("weight_ih", "bias_ih", "weight_hh")
        ]
        for found, part in zip((inputs, biases, recurrent), parts, strict=True):
            enter, keep, new, out = part.detach().chunk(4)
            found.append(torch.cat([out, enter, keep, new]))
    return torch.cat(inputs).T, torch.cat(biases), torch.stack([part.T for part in recurrent])


def test_each_set_is_a_torch_lstm_forward_and_backward() -> None:
    torch.manual_seed(0)
    layers = [nn.LSTM(WIDTH, HIDDEN, bidirectional=True, batch_first=True).double() for _ in range(3)]
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter)  # torch has two biases where one is enough
    inputs = torch.randn(3, 2, 11, WIDTH, dtype=torch.float64)
    ours = [torch.stack(parts).requires_grad_() for parts in zip(*map(_weights, layers), strict=True)]
    ours_inputs, theirs_inputs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    found = bidirectional(ours_inputs, *ours)
    expected = torch.stack([layer(theirs_inputs[number])[0] for number, layer in enumerate(layers)])
    torch.testing.assert_close(found, expected)

    direction = torch.randn_like(expected)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(ours_inputs.grad, theirs_inputs.grad)
    for number, layer in enumerate(layers):
        for parameter in layer.parameters():
            parameter.data = parameter.grad  # so that the gradients are read in our order
        for gradient, reference in zip(ours, _weights(layer), strict=True):
            torch.testing.assert_close(gradient.grad[number], reference)


def test_one_step() -> None:
    torch.manual_seed(1)
    layer = nn.LSTM(WIDTH, HIDDEN, bidirectional=True, batch_first=True)
    layer.bias_hh_l0.data.zero_()
    layer.bias_hh_l0_reverse.data.zero_()
    inputs = torch.randn(1, 4, 1, WIDTH)
    weights = [part[None].requires_grad_() for part in _weights(layer)]
    found = bidirectional(inputs, *weights)
    torch.testing.assert_close(found[0], layer(inputs[0])[0])
    found.sum().backward()
    assert not weights[2].grad.any()
