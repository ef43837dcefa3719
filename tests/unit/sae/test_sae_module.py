"""The constraints of the decoder and the folding of the input scale."""

import copy

import pytest
import torch

from saelab.sae.activations import BatchTopK, Gated, ReLU, TopK
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE


def an_sae(act) -> SAE:
    return SAE(5, 12, act, generator=torch.Generator().manual_seed(0))


def test_starts_as_unit_rows_and_their_transpose():
    sae = an_sae(ReLU())
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(12))
    assert torch.equal(sae.W_enc, sae.W_dec.T) and not sae.b_enc.any() and not sae.b_dec.any()
    assert (sae.d_in, sae.n_latents) == (5, 12) and sae.directions is sae.W_dec
    assert torch.equal(sae.W_dec, an_sae(ReLU()).W_dec)


def test_projection_keeps_directions_and_restores_norms():
    sae = an_sae(ReLU())
    before = sae.W_dec.detach().clone()
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.1, 9, 12).unsqueeze(1))
        sae.W_dec[3] = 0
    sae.project_()
    alive = [j for j in range(12) if j != 3]
    torch.testing.assert_close(sae.W_dec[alive], before[alive])
    assert not sae.W_dec[3].any()  # no NaN from a zero row


def test_projected_gradient_is_orthogonal_to_the_rows():
    sae = an_sae(ReLU())
    sae.project_gradient_()  # nothing to do without a gradient
    sae.W_dec.grad = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    across = sae.W_dec.grad - (sae.W_dec.grad * sae.W_dec).sum(1, keepdim=True) * sae.W_dec.detach()
    sae.project_gradient_()
    torch.testing.assert_close(sae.W_dec.grad, across.detach())
    torch.testing.assert_close(
        (sae.W_dec.grad * sae.W_dec).sum(1), torch.zeros(12), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "make", [ReLU, lambda: TopK(3), lambda: BatchTopK(3), lambda: JumpReLU(12), lambda: Gated(12)]
)
def test_folding_changes_units_only(make):
    sae, g = an_sae(make()), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [*sae.parameters(), *sae.buffers()]:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=g).abs())
        if isinstance(sae.act, Gated):
            sae.b_enc.zero_()
    sae = sae.double()
    x = 3 * torch.randn(200, 5, generator=g, dtype=torch.float64)
    for scale in (0.07, 11.0):
        folded = copy.deepcopy(sae)
        folded.fold_scale_(scale)
        z = sae.encode(x * scale)
        assert 0.02 < (z > 0).double().mean() < 1
        torch.testing.assert_close(folded.encode(x), z / scale, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(folded(x), sae(x * scale) / scale, rtol=1e-10, atol=1e-12)


def test_folding_scales_the_bandwidth_too():
    sae = an_sae(JumpReLU(12, threshold=0.3, width=0.06))
    sae.fold_scale_(2.0)
    assert sae.act.width == pytest.approx(0.03) and sae.act.threshold[0].item() == pytest.approx(
        0.15
    )
