"""Losses and activations of the baselines against plain implementations of the formulas they cite."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saelab.sae.activations import BatchTopK, Gated, ReLU, TopK
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.terms.base import Step
from saelab.terms.reconstruct import aux_k, gate_mse, mse, prefix_mse
from saelab.terms.sparsity import gate_l1, jump_l0, l1, p_norm
from saelab.types import Tokens

pytestmark = pytest.mark.usefixtures("float64")
N, D, L = 24, 5, 12


def random_sae(act, seed=0) -> SAE:
    """Nothing is 0, 1 or tied: decoder rows of any norm, all biases set."""
    g = torch.Generator().manual_seed(seed)
    sae = SAE(D, L, act, generator=g)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
        if isinstance(act, JumpReLU):
            act.threshold.abs_().add_(0.1)
        if isinstance(act, Gated):
            sae.b_enc.zero_()
    return sae


def seen(sae, dead=(), progress=1.0) -> Step:
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(7))
    pre = sae.pre(x)
    z = sae.act.train_codes(pre, progress)
    mask = torch.zeros(L, dtype=torch.bool)
    mask[list(dead)] = True
    return Step(
        sae, {"main": Tokens(x)}, x, pre, z, sae.decode(z), mask, progress, torch.Generator()
    )


def arrays(sae) -> SimpleNamespace:
    return SimpleNamespace(
        **{name.replace(".", "_"): p.detach().numpy() for name, p in sae.state_dict().items()}
    )


def pre_of(p, x):
    """One position and one latent at a time: (x - b_dec) . W_enc_j + b_enc_j."""
    return np.array(
        [[sum((row - p.b_dec) * p.W_enc[:, j]) + p.b_enc[j] for j in range(L)] for row in x]
    )


def error_of(x, x_hat):
    return sum(
        sum((a - b) ** 2 for a, b in zip(r, s, strict=True)) for r, s in zip(x, x_hat, strict=True)
    ) / len(x)


# Forward: x -> pre -> z -> x_hat -> squared error -------------------------------------------------


@pytest.mark.parametrize("make", [ReLU, lambda: TopK(3), lambda: JumpReLU(L), lambda: Gated(L)])
def test_forward_is_the_formula(make):
    sae = random_sae(act := make())
    p, step = arrays(sae), seen(sae)
    x = step.x.numpy()
    pre = pre_of(p, x)
    if isinstance(act, ReLU):
        z = np.maximum(pre, 0)
    elif isinstance(act, TopK):
        z = np.zeros_like(pre)
        for i, row in enumerate(pre):
            for j in sorted(range(L), key=lambda j, row=row: -row[j])[:3]:
                z[i, j] = max(row[j], 0)
    elif isinstance(act, JumpReLU):
        z = np.where(pre > p.act_threshold, pre, 0)
    else:
        gate, magnitude = pre + p.act_b_gate, np.exp(p.act_r_mag) * pre + p.act_b_mag
        z = np.where(gate > 0, np.maximum(magnitude, 0), 0)
    x_hat = z @ p.W_dec + p.b_dec
    assert 0 < (z > 0).mean() < 1
    np.testing.assert_allclose(step.pre.detach(), pre, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(step.z.detach(), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sae.encode(step.x).detach(), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sae(step.x).detach(), x_hat, rtol=1e-12, atol=1e-12)
    assert mse(step).item() == pytest.approx(error_of(x, x_hat), rel=1e-12)


# JumpReLU: equations 10 to 12 of 2407.14435 -------------------------------------------------------


def rectangle(u):
    return 1.0 if -0.5 < u < 0.5 else 0.0


def test_jump_relu_gradients_are_the_cited_pseudo_derivatives():
    """dz/dtheta = -(theta / eps) K((pre - theta) / eps), dz/dpre = H(pre - theta), for a loss with
    any gradient in z.
    """
    act = JumpReLU(3, threshold=0.2, width=0.3)
    with torch.no_grad():
        act.threshold.copy_(torch.tensor([0.1, 0.2, 0.5]))
    pre = torch.linspace(-0.3, 0.8, 36).reshape(12, 3).requires_grad_()
    slope = torch.randn(12, 3, generator=torch.Generator().manual_seed(3))
    (act(pre) * slope).sum().backward()
    theta, p = act.threshold.detach().numpy(), pre.detach().numpy()
    expected = [
        sum(
            -float(slope[i, j]) * theta[j] / 0.3 * rectangle((p[i, j] - theta[j]) / 0.3)
            for i in range(12)
        )
        for j in range(3)
    ]
    assert (p < 0).any() and np.abs(expected).min() > 0
    np.testing.assert_allclose(act.threshold.grad, expected, rtol=1e-12)
    np.testing.assert_allclose(pre.grad, slope.numpy() * (p > theta), rtol=1e-12)


def test_jump_relu_l0_counts_and_its_gradient_reaches_the_thresholds_only():
    """dL0/dtheta = -(1 / eps) K((pre - theta) / eps), averaged over positions; the step function is
    applied once, to pre.
    """
    sae = random_sae(JumpReLU(L, width=0.4))
    step = seen(sae)
    value = jump_l0(step)
    value.backward()
    pre, theta = step.pre.detach().numpy(), sae.act.threshold.detach().numpy()
    assert value.item() == pytest.approx((pre > theta).sum(1).mean())
    assert 0 < value.item() < L
    expected = [
        -sum(rectangle((pre[i, j] - theta[j]) / 0.4) for i in range(N)) / 0.4 / N for j in range(L)
    ]
    np.testing.assert_allclose(sae.act.threshold.grad, expected, rtol=1e-12)
    assert any(expected)
    assert not any(
        p.grad is not None and p.grad.any() for p in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec)
    )


def test_jump_relu_loss_reaches_thresholds_of_latents_just_below_them():
    """The reconstruction's gradient for a threshold sums also over positions where the code is 0
    (pre in the band below).
    """
    sae = random_sae(JumpReLU(L, width=0.5))
    step = seen(sae)
    mse(step).backward()
    pre, theta = step.pre.detach().numpy(), sae.act.threshold.detach().numpy()
    to_z = (2 / N * (step.x_hat - step.x) @ sae.W_dec.T).detach().numpy()
    below = [
        sum(
            -to_z[i, j] * theta[j] / 0.5 for i in range(N) if theta[j] - 0.25 < pre[i, j] < theta[j]
        )
        for j in range(L)
    ]
    above = [
        sum(
            -to_z[i, j] * theta[j] / 0.5 for i in range(N) if theta[j] < pre[i, j] < theta[j] + 0.25
        )
        for j in range(L)
    ]
    assert np.abs(below).max() > 0.01
    np.testing.assert_allclose(sae.act.threshold.grad, np.add(below, above), rtol=1e-9, atol=1e-12)


def test_a_threshold_never_stays_below_zero():
    act = JumpReLU(2, width=0.4)
    with torch.no_grad():
        act.threshold.copy_(torch.tensor([-0.1, 0.3]))
    act.project_()
    assert act.threshold.tolist() == [0.0, 0.3]
    act.count(torch.tensor([[0.05, 0.05]])).sum().backward()
    assert act.threshold.grad.tolist() == [-2.5, 0.0]  # at 0 the gradient still arrives


def test_jump_relu_calibration_multiplies_all_thresholds():
    act = JumpReLU(L)
    pre = torch.randn(2_000, L, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        act.threshold.copy_(torch.linspace(0.5, 1.5, L))
    before = act.threshold.detach().clone()
    act.calibrate_(pre, 2.0)
    assert int((act(pre) > 0).sum()) / 2_000 == pytest.approx(2.0, abs=2e-3)
    ratio = act.threshold.detach() / before
    torch.testing.assert_close(ratio, ratio[0].expand(L), rtol=1e-12, atol=0)


# Gated: equation 8 of 2404.16014 ------------------------------------------------------------------


def test_gated_losses():
    sae = random_sae(Gated(L))
    p, step = arrays(sae), seen(sae)
    gate = np.maximum(pre_of(p, step.x.numpy()) + p.act_b_gate, 0)
    frozen = gate @ p.W_dec + p.b_dec
    assert gate_mse(step).item() == pytest.approx(error_of(step.x.numpy(), frozen), rel=1e-12)
    norms = [math.sqrt(sum(row**2)) for row in p.W_dec]
    assert gate_l1(step).item() == pytest.approx((gate * norms).sum() / N, rel=1e-12)


def test_gated_auxiliary_loss_does_not_train_the_decoder():
    """W_dec gets nothing; b_dec only what comes through the encoder's input x - b_dec, as in the
    paper's pseudo-code.
    """
    sae = random_sae(Gated(L))
    gate_mse(seen(sae)).backward()
    assert sae.W_dec.grad is None and sae.act.r_mag.grad is None and sae.act.b_mag.grad is None

    W_enc, b_dec, b_gate = (
        t.detach().clone().requires_grad_() for t in (sae.W_enc, sae.b_dec, sae.act.b_gate)
    )
    x = seen(sae).x
    x_hat = ((x - b_dec) @ W_enc + b_gate).relu() @ sae.W_dec.detach() + b_dec.detach()
    ((x - x_hat) ** 2).sum(1).mean().backward()
    for mine, theirs in ((sae.W_enc, W_enc), (sae.b_dec, b_dec), (sae.act.b_gate, b_gate)):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)
        assert theirs.grad.any()


def test_gated_reconstruction_trains_magnitudes_but_not_the_gate():
    sae = random_sae(Gated(L))
    mse(seen(sae)).backward()
    assert sae.act.b_mag.grad.any() and sae.act.r_mag.grad.any()
    assert sae.act.b_gate.grad is None or not sae.act.b_gate.grad.any()


def test_gated_encoder_bias_stays_zero():
    assert not SAE(D, L, Gated(L)).b_enc.requires_grad and SAE(D, L, ReLU()).b_enc.requires_grad


def test_gated_calibration_shifts_all_gates_and_counts_only_what_has_a_magnitude():
    act = Gated(3)
    with torch.no_grad():
        act.b_gate.copy_(torch.tensor([0.5, -0.5, 0.0]))
        act.b_mag.copy_(torch.tensor([0.0, 10.0, -10.0]))  # the third never has a magnitude
    pre = torch.tensor([[1.0, -2.0, 5.0], [2.0, -1.0, 6.0], [3.0, 0.0, 7.0], [4.0, 1.0, 8.0]])
    before = act.b_gate.clone()
    # 3 entries of 4 positions: gates 2.5, 3.5, 4.5 of the first latent are the largest
    act.calibrate_(pre, 0.75)
    shift = before - act.b_gate
    assert torch.allclose(shift, torch.full((3,), 2.0))  # halfway between 2.5 and 1.5
    assert int((act(pre) > 0).sum()) == 3
    kept = act.b_gate.clone()
    act.calibrate_(pre, 2.9)  # only 8 entries have a magnitude: 11.6 cannot be active
    assert torch.equal(act.b_gate, kept)


# Penalties ----------------------------------------------------------------------------------------


def test_l1_is_scaled_by_decoder_norms_and_indifferent_to_rescaling():
    sae = random_sae(ReLU())
    step = seen(sae)
    z, rows = step.z.detach().numpy(), sae.W_dec.detach().numpy()
    by_hand = sum(z[i, j] * math.sqrt(sum(rows[j] ** 2)) for i in range(N) for j in range(L)) / N
    assert l1(step).item() == pytest.approx(by_hand, rel=1e-12)
    # half the codes, twice the decoder: the same reconstruction, the same price
    with torch.no_grad():
        sae.W_enc /= 2
        sae.b_enc /= 2
        sae.W_dec *= 2
    assert l1(seen(sae)).item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("p", [1.0, 0.6, 0.2])
def test_p_norm_keeps_its_size_and_has_the_gradient_of_the_power(p):
    """Value: that of the L1 sum for every p. Gradient: c * p * s^(p-1) with c = sum s / sum s^p
    held fixed.
    """
    sae = random_sae(ReLU())
    step = seen(sae)
    step.z.retain_grad()
    value = p_norm(p)(step)
    value.backward()
    norms = sae.W_dec.detach().norm(dim=1).numpy()
    s = step.z.detach().numpy() * norms
    active = s > 0
    powered = ((s + 1e-4) ** p)[active].sum()
    assert value.item() == pytest.approx(s.sum() / N, rel=1e-12)
    expected = np.where(active, s.sum() / powered * p * (s + 1e-4) ** (p - 1) * norms / N, 0)
    np.testing.assert_allclose(step.z.grad, expected, rtol=1e-10, atol=1e-14)


def test_p_norm_follows_its_schedule_and_is_zero_without_codes():
    sae = random_sae(ReLU())
    sharp = p_norm(lambda progress: 1 - 0.8 * progress)
    grads = []
    for progress, p in ((0.0, 1.0), (1.0, 0.2)):
        pair = []
        for term in (sharp, p_norm(p)):
            step = seen(sae, progress=progress)
            step.z.retain_grad()
            term(step).backward()
            pair.append(step.z.grad)
        torch.testing.assert_close(*pair)
        grads.append(pair[0])
    assert not torch.allclose(*grads)
    with torch.no_grad():
        sae.b_enc -= 100
    assert sharp(seen(sae)).item() == 0


# Matryoshka and AuxK ------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(12,), (3, 12), (1, 3, 6, 12), (1, 1, 3, 12)])
def test_matryoshka_is_the_mean_of_the_errors_of_the_prefixes(widths):
    sae = random_sae(BatchTopK(4))
    p, step = arrays(sae), seen(sae)
    z, x = step.z.detach().numpy(), step.x.numpy()
    errors = [error_of(x, z[:, :w] @ p.W_dec[:w] + p.b_dec) for w in widths]
    loss = prefix_mse(widths)(step)
    assert loss.item() == pytest.approx(sum(errors) / len(widths), rel=1e-12)
    got = torch.autograd.grad(loss, [sae.W_dec, sae.b_dec, sae.W_enc], retain_graph=True)
    naive = sum(
        ((step.x - step.z[:, :w] @ sae.W_dec[:w] - sae.b_dec) ** 2).sum(1).mean() for w in widths
    ) / len(widths)
    for mine, theirs in zip(
        got, torch.autograd.grad(naive, [sae.W_dec, sae.b_dec, sae.W_enc]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_aux_k_reconstructs_the_residual_from_the_dead():
    sae, dead = random_sae(TopK(2)), (1, 4, 5, 9)
    p, step = arrays(sae), seen(sae, dead)
    pre, residual = step.pre.detach().numpy(), (step.x - step.x_hat).detach().numpy()
    e_hat = np.zeros_like(residual)
    for i in range(N):
        for j in sorted(dead, key=lambda j, i=i: -pre[i, j])[:3]:
            e_hat[i] += max(pre[i, j], 0) * p.W_dec[j]
    assert aux_k(3)(step).item() == pytest.approx(error_of(residual, e_hat), rel=1e-12)
    assert aux_k(99)(step).item() == pytest.approx(
        error_of(residual, np.maximum(pre[:, dead], 0) @ p.W_dec[list(dead)]), rel=1e-12
    )


def test_aux_k_trains_the_dead_only_and_not_the_residual():
    sae, dead = random_sae(TopK(2)), [1, 4, 5, 9]
    aux_k(3)(seen(sae, dead)).backward()
    for rows in (sae.W_dec.grad, sae.W_enc.grad.T, sae.b_enc.grad):
        alive = [j for j in range(L) if j not in dead]
        assert rows[dead].any() and not rows[alive].any()


def test_aux_k_is_zero_without_dead_latents():
    sae = random_sae(TopK(2))
    value = aux_k(3)(seen(sae))
    assert value.item() == 0 and not value.requires_grad
