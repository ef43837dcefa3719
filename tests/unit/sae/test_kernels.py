"""The sparse products against the dense definition, forward and every gradient."""

import copy

import pytest
import torch
from torch import Tensor

from saelab.sae import kernels
from saelab.sae.activations import Activation, BatchTopK, Gated, ReLU, TopK
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE

D, L, N = 24, 160, 40
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
ACTIVATIONS = {
    "relu": lambda: ReLU(),
    "topk": lambda: TopK(4),
    "batch_topk": lambda: BatchTopK(4),
    "jump_relu": lambda: JumpReLU(L, threshold=1.5, width=0.5),
    "gated": lambda: Gated(L),
}


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """The products here would all be dense."""
    monkeypatch.setattr(kernels, "SMALL", 0)


def make(act: Activation, dtype: torch.dtype) -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, L, act, generator=generator).to(dtype)
    with torch.no_grad():
        sae.b_dec.copy_(torch.randn(D, generator=generator) * 0.1)
        sae.b_enc.copy_(
            torch.randn(L, generator=generator) * 0.1
            - (0.0 if isinstance(act, Gated | JumpReLU) else 1.5)
        )
        if isinstance(act, Gated):
            act.b_gate.fill_(-1.5)
            act.r_mag.copy_(torch.randn(L, generator=generator) * 0.1)
    return sae


def data(dtype: torch.dtype, *shape: int) -> Tensor:
    """Pre-activations have standard deviation .8: 1.5 is two of them off, so about 5 of 160 latents
    are active.
    """
    return 0.8 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(1)).to(dtype)


def dense_codes(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, written out: pre, z, x_hat."""
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    z = sae.act.train_codes(pre, 0.5)
    return pre, z, z @ sae.W_dec + sae.b_dec


def fast_codes(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pre = sae.pre(x)
    z = sae.act.train_codes(pre, 0.5)
    return pre, z, sae.decode(z)


def gradients(sae: SAE, x: Tensor, codes, penalty: float) -> dict[str, Tensor]:
    """The reconstruction and all gradients of error + L1, by name."""
    sae = copy.deepcopy(sae)
    pre, z, x_hat = codes(sae, x)
    loss = (x - x_hat).square().sum(-1).mean() + penalty * (z * sae.W_dec.norm(dim=1)).sum(
        -1
    ).mean()
    loss.backward()
    return {"pre": pre.detach(), "x_hat": x_hat.detach()} | {
        n: p.grad for n, p in sae.named_parameters() if p.grad is not None
    }


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= tolerance * value.norm(), name


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    """Which sparse products ran."""
    seen: list[str] = []
    for name in ("times", "transposed_times", "sampled"):
        inner = getattr(kernels._Entries, name)

        def spy(self, *args, inner=inner, name=name):
            seen.append(name)
            return inner(self, *args)

        monkeypatch.setattr(kernels._Entries, name, spy)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(N,), (5, 8)], ids=["tokens", "windows"])
def test_equals_the_dense_definition(name, dtype, shape, taken):
    sae, x = make(ACTIVATIONS[name](), dtype), data(dtype, *shape)
    assert 2 < (dense_codes(sae, x)[1] > 0).sum() / N < 8
    for penalty in (0.0, 0.3):
        expected = gradients(sae, x, dense_codes, penalty)
        taken.clear()
        found = gradients(sae, x, fast_codes, penalty)
        assert_close(found, expected, TOLERANCE[dtype])
        # forward, W_dec's gradient, W_enc's; JumpReLU's threshold learns from codes just below it,
        # so grad_z stays dense
        inside = [] if name == "jump_relu" else ["sampled"]
        assert taken == ["times", *inside, "transposed_times", "transposed_times"]


def test_the_threshold_learns_from_inactive_entries():
    sae, x = make(ACTIVATIONS["jump_relu"](), torch.float64), data(torch.float64, N)
    pre, z, _ = fast_codes(sae, x)
    below = (z == 0) & ((pre.relu() - 1.5).abs() < 0.25)
    only = below.any(0) & ~(z > 0).any(0)
    assert only.any()
    grad = gradients(sae, x, fast_codes, 0.0)["act.threshold"]
    assert (grad[only] != 0).all()


@pytest.mark.parametrize("bias", [-100.0, 100.0], ids=["no latent active", "all active"])
def test_extremes_of_sparsity(bias, taken):
    sae, x = make(ReLU(), torch.float64), data(torch.float64, N)
    with torch.no_grad():
        sae.b_enc.fill_(bias)
    assert_close(gradients(sae, x, fast_codes, 0.3), gradients(sae, x, dense_codes, 0.3), 1e-12)
    assert bool(taken) == (bias < 0)  # dense codes take the dense path


def test_small_products_are_dense(monkeypatch, taken):
    sae, x = make(BatchTopK(4), torch.float64), data(torch.float64, N)
    for small, path in ((N * L * D, True), (N * L * D + 1, False)):
        taken.clear()
        monkeypatch.setattr(kernels, "SMALL", small)
        assert_close(gradients(sae, x, fast_codes, 0.3), gradients(sae, x, dense_codes, 0.3), 1e-12)
        assert bool(taken) == path


def test_rows_without_an_active_latent():
    sae, x = make(ReLU(), torch.float64), data(torch.float64, N)
    x[[0, 7, N - 1]] = sae.b_dec.detach()  # pre is b_enc there, which is negative
    assert (fast_codes(sae, x)[1][[0, 7, N - 1]] == 0).all()
    assert torch.equal(fast_codes(sae, x)[2][7], sae.b_dec)
    assert_close(gradients(sae, x, fast_codes, 0.3), gradients(sae, x, dense_codes, 0.3), 1e-12)


def test_one_position_and_one_latent(monkeypatch):
    monkeypatch.setattr(kernels, "CROSSOVER", 1.0)
    z = torch.tensor([[3.0], [0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0]], requires_grad=True)
    kernels.decode(z, weight, True).sum().backward()
    assert z.grad is not None and weight.grad is not None
    assert z.grad.tolist() == [[-1.0], [0.0]]  # and nothing outside the support
    assert weight.grad.tolist() == [[3.0, 3.0]]
    one = kernels.decode(z[0].detach(), weight, True)
    assert one.tolist() == [3.0, -6.0]


def test_auxiliary_losses_on_pre_stay_exact(taken):
    """A loss on other entries of `pre` (AuxK, a gate) reaches the encoder whole, whichever path is
    taken.
    """
    sae, x = make(TopK(4), torch.float64), data(torch.float64, N)
    for entries in (slice(3, 5), slice(None)):
        grads = []
        for codes in (fast_codes, dense_codes):
            sae.zero_grad()
            pre, _, x_hat = codes(sae, x)
            ((x - x_hat).square().sum() + pre[:, entries].square().sum()).backward()
            grads.append(
                {n: p.grad.clone() for n, p in sae.named_parameters() if p.grad is not None}
            )
        assert_close(grads[0], grads[1], 1e-12)
    # W_dec twice, W_enc only while its gradient is sparse
    assert taken.count("transposed_times") == 3


def test_changed_codes_get_their_whole_gradient():
    sae, x = make(TopK(4), torch.float64), data(torch.float64, N)
    z = sae.act.train_codes(sae.pre(x), 0.0)
    change = torch.zeros(L, dtype=torch.float64, requires_grad=True)
    sae.decode(z + change).sum().backward()
    torch.testing.assert_close(change.grad, N * sae.W_dec.detach().sum(1))
    z = sae.act.train_codes(sae.pre(x), 0.0)
    assert kernels.is_support_only(z)
    z.add_(0)
    assert not kernels.is_support_only(z)


def test_inputs_that_need_a_gradient_get_it():
    sae, x = make(TopK(4), torch.float64), data(torch.float64, N)
    grads = []
    for codes in (fast_codes, dense_codes):
        leaf = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(codes(sae, leaf)[2].square().sum(), leaf)[0])
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_frozen_weights_and_no_grad(taken):
    sae, x = make(TopK(4), torch.float64), data(torch.float64, N)
    expected = dense_codes(sae, x)[2]
    with torch.no_grad():
        torch.testing.assert_close(fast_codes(sae, x)[2], expected, rtol=1e-12, atol=1e-12)
    full, reference = gradients(sae, x, fast_codes, 0.3), gradients(sae, x, dense_codes, 0.3)
    for name in ("W_dec", "W_enc", "b_dec", "b_enc"):
        sae.requires_grad_(True).get_parameter(name).requires_grad_(False)
        found = gradients(sae, x, fast_codes, 0.3)
        assert name not in found
        assert_close(found, {key: value for key, value in reference.items() if key != name}, 1e-12)
    assert full.keys() == reference.keys()


def test_second_derivatives_are_those_of_the_definition():
    sae, x = make(TopK(4), torch.float64), data(torch.float64, 4)
    found = []
    for codes in (fast_codes, dense_codes):
        loss = codes(sae, x)[2].square().sum()
        first = torch.autograd.grad(loss, list(sae.parameters()), create_graph=True)
        found.append(
            torch.autograd.grad(sum(g.square().sum() for g in first), list(sae.parameters()))
        )
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_two_identical_calls_give_identical_bits():
    sae, x = make(BatchTopK(4), torch.float32), data(torch.float32, N)
    first, second = gradients(sae, x, fast_codes, 0.3), gradients(sae, x, fast_codes, 0.3)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_autocast_runs_the_definition(taken):
    sae, x = make(TopK(4), torch.float32), data(torch.float32, N)
    with torch.autocast("cpu", torch.bfloat16):
        x_hat = fast_codes(sae, x)[2]
    x_hat.float().square().sum().backward()
    assert taken == []
    assert sae.W_enc.grad is not None and sae.W_enc.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_other_devices_run_the_definition(taken):
    sae, x = make(TopK(4), torch.float32).to("cuda"), data(torch.float32, N).to("cuda")
    assert_close(gradients(sae, x, fast_codes, 0.3), gradients(sae, x, dense_codes, 0.3), 1e-4)
    assert taken == []


def test_parts_add_up_to_the_whole():
    sae, x = make(BatchTopK(4), torch.float64), data(torch.float64, N)

    def parts(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pre = sae.pre(x)
        z = sae.act.train_codes(pre, 0.5)
        x_hat = sum(
            (sae.decode_part(z, range(a, b)) for a, b in ((0, 7), (7, 100), (100, L))), sae.b_dec
        )
        assert isinstance(x_hat, Tensor)
        return pre, z, x_hat

    assert_close(gradients(sae, x, parts, 0.3), gradients(sae, x, dense_codes, 0.3), 1e-12)


def test_encoder_is_stored_row_by_latent_and_survives_a_folder(tmp_path):
    from saelab.sae.io import load_sae, save_sae

    sae = make(TopK(4), torch.float32)
    assert sae.W_enc.shape == (D, L) and sae.W_enc.T.is_contiguous()
    gradients_like = torch.zeros_like(sae.W_enc)
    assert gradients_like.stride() == sae.W_enc.stride()
    save_sae(sae, tmp_path / "sae", {})
    again = load_sae(tmp_path / "sae")
    assert torch.equal(again.W_enc, sae.W_enc) and again.W_enc.T.is_contiguous()
