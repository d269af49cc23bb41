"""Products of bf16 numbers in fp32 are what bf16 instructions give."""

from __future__ import annotations

import torch

from mert_core.model.kernels import strided_conv
from mert_core.training.precision import Bf16Products, bf16_products


def exact(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.double() @ right.double()).float()


def test_products_are_the_exact_ones_rounded_once() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(37, 300).bfloat16(), torch.randn(300, 19).bfloat16()
    with Bf16Products():
        found = left @ right
        batched = torch.bmm(left[None], right[None])[0]
        added = torch.addmm(found, left, right)
        into = torch.empty_like(found)
        torch.mm(left, right, out=into)
        in_place = found.clone()
        torch.addmm(in_place, left, right, out=in_place)
    assert {x.dtype for x in (found, batched, added, into, in_place)} == {torch.bfloat16}
    for product in (found, batched, into):
        torch.testing.assert_close(product.float(), exact(left, right), rtol=2**-8, atol=1e-4)
    for total in (added, in_place):
        torch.testing.assert_close(total.float(), exact(left, right) + found.float(), rtol=2**-8, atol=1e-4)


def test_gradients_and_values_agree_with_torchs_own_bf16() -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(1)
        layer, rows, weight = torch.nn.Linear(24, 24), torch.randn(40, 24), torch.randn(24, 24, 3) / 8
        rows.requires_grad_()
        weight.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = strided_conv(layer(rows), weight, 2).float().square().mean()
        loss.backward()
        return [loss.detach(), rows.grad, weight.grad, layer.weight.grad]  # type: ignore[list-item]

    expected = run()
    with Bf16Products():
        found = run()
    for mine, other in zip(found, expected, strict=True):
        assert (mine - other).norm() < 0.01 * other.norm()


def test_it_steps_in_for_bf16_on_plain_processors_alone() -> None:
    cpu = torch.device("cpu")
    assert not isinstance(bf16_products("fp32", cpu), Bf16Products)
    assert not isinstance(bf16_products("bf16", torch.device("cuda")), Bf16Products)
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert isinstance(bf16_products("bf16", cpu), Bf16Products) != native
