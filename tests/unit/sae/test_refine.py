"""One refinement step, and leaving out latents that the others make superfluous."""

import copy

import pytest
import torch

from saelab.evals.common.selected import batch_selected
from saelab.sae import kernels
from saelab.sae.activations import BatchTopK, Gated, ReLU, TopK, Trimmed
from saelab.sae.io import load_sae, save_sae
from saelab.sae.jump_relu import JumpReLU
from saelab.sae.module import SAE
from saelab.store import read_json, write_json

D, L, N = 8, 20, 400


def an_sae(act, **more) -> SAE:
    """Nothing is tied, all biases set; float64."""
    g = torch.Generator().manual_seed(0)
    sae = SAE(D, L, act, generator=g, **more).double()
    with torch.no_grad():
        for p in (sae.W_enc, sae.b_enc, sae.b_dec):
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return sae


def data(n=N) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1)).double()


def by_hand(sae, x, eta, progress=0.5):
    """pre + eta * ((x - decode(act(pre))) @ W_enc), written out."""
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    z = sae.act.train_codes(pre, progress)
    pre = pre + eta * (x - (z @ sae.W_dec + sae.b_dec)) @ sae.W_enc
    return pre, sae.act.train_codes(pre, progress)


@pytest.mark.parametrize("act", [ReLU, lambda: TopK(3), lambda: BatchTopK(3)])
def test_refinement_is_the_formula(act):
    sae, x = an_sae(act(), refine=0.3), data()
    pre, z = sae.codes(x, 0.5)
    expected_pre, expected_z = by_hand(sae, x, 0.3)
    torch.testing.assert_close(pre, expected_pre, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(z, expected_z, rtol=1e-10, atol=1e-12)
    assert not torch.equal(z > 0, sae.act.train_codes(sae.pre(x), 0.5) > 0)


def test_no_refinement_is_one_pass_bit_for_bit():
    sae, x = an_sae(BatchTopK(3)), data()
    pre, z = sae.codes(x, 0.5)
    assert torch.equal(pre, sae.pre(x)) and torch.equal(z, sae.act.train_codes(pre, 0.5))
    assert sae.first is None and "drop_below" not in sae.state_dict() and sae.prune(x, z) is z


def test_with_an_ideal_dictionary_one_whole_step_undoes_shrinkage():
    """Orthonormal latents whose encoder gives half the code: the residual is the other half, and
    W_enc gives half of it.
    """
    sae = SAE(D, D, ReLU(), refine=1.0).double()
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(D))
        sae.W_enc.copy_(torch.eye(D) / 2)
    x = data().abs()
    torch.testing.assert_close(sae.encode(x), 0.75 * x)


def test_the_residual_is_a_constant_to_the_weights_and_not_to_the_input():
    sae, x = an_sae(TopK(3), refine=0.3), data(5)
    with torch.no_grad():
        moved = x + 0.3 * (x - sae.decode(sae.first(sae.pre(x))))
    grads = []
    for pre in (sae.codes(x, 0.5)[0], sae.pre(moved)):
        *used, unused = torch.autograd.grad(
            pre.square().sum(), (sae.W_enc, sae.b_enc, sae.b_dec, sae.W_dec), allow_unused=True
        )
        grads.append(used)
        assert unused is None
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    leaf = x[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sae.codes(x)[0], leaf)


@pytest.mark.parametrize("small", [0, 1 << 40], ids=["sparse", "dense"])
def test_both_paths_agree(monkeypatch, small):
    monkeypatch.setattr(kernels, "SMALL", small)
    monkeypatch.setattr(kernels, "CROSSOVER", 0.5)
    sae, x = an_sae(BatchTopK(3), refine=0.3, leave_one_out=0.3), data()
    sae.calibrate_(x, 2.0)
    z = sae.codes(x, 0.5)[1]
    torch.testing.assert_close(z, by_hand(sae, x, 0.3)[1], rtol=1e-10, atol=1e-12)
    score = z * sae.W_dec.square().sum(1) + (x - sae.decode(z)) @ sae.W_dec.T
    kept = torch.where((z > 0) & (score > sae.drop_below), z, 0.0)
    torch.testing.assert_close(sae.prune(x, z), kept, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        sae.prune(x.view(20, 20, D), z.view(20, 20, L)),
        kept.view(20, 20, L),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(sae.prune(x[0], z[0]), kept[0], rtol=1e-10, atol=1e-12)


def test_the_score_is_the_best_coefficient_given_the_others():
    sae, x = an_sae(BatchTopK(3), leave_one_out=0.5), data(30)
    z = sae.act.train_codes(sae.pre(x), 1.0)
    scores = sae._scores(x, z)
    for i, j in (z > 0).nonzero()[:10].tolist():
        others = z[i].clone()
        others[j] = 0
        residual = x[i] - sae.decode(others[None])[0]
        best = residual @ sae.W_dec[j] / sae.W_dec[j].square().sum()  # least squares in one unknown
        # rows are of norm 1 to float32
        assert scores[i, j].item() == pytest.approx(best.item(), rel=1e-6)


def test_a_superfluous_latent_goes_and_the_needed_ones_stay():
    """Two orthogonal directions make x; a third latent along their sum is active too, and explains
    what is explained.
    """
    sae = SAE(2, 3, ReLU(), leave_one_out=1 / 3).double()
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5]]))
    x, z = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[1.0, 1.0, 0.2]]).double()
    scores = sae._scores(x, z)[0]
    assert scores[2].item() == pytest.approx(0, abs=1e-6) and (scores[:2] > 0.8).all()
    with torch.no_grad():
        sae.drop_below.fill_(0.1)
    assert sae.prune(x, z).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("act", [lambda: BatchTopK(3), Trimmed])
@pytest.mark.parametrize("refine", [0.0, 0.3])
@pytest.mark.parametrize("left_out", [0.0, 0.33])
@pytest.mark.parametrize("l0", [1.5, 3.0])
def test_calibration_gives_the_l0_asked_for(act, refine, left_out, l0):
    sae, x = an_sae(act(), refine=refine, leave_one_out=left_out), data()
    sae.calibrate_(x, l0)
    assert float((sae.encode(x) > 0).sum()) / N == pytest.approx(l0, abs=1.5 / N)
    assert float((sae.codes(x)[1] > 0).sum()) / N == pytest.approx(l0 / (1 - left_out), abs=1.5 / N)
    # training selects k = l0 then: the same codes
    if left_out == 0 and isinstance(sae.act, BatchTopK):
        sae.act.k = l0
        if sae.first is not None:
            sae.first.k = l0
        torch.testing.assert_close(sae.encode(x), sae.codes(x, 1.0)[1])


def test_calibration_without_anything_active():
    sae = an_sae(BatchTopK(3), leave_one_out=0.5)
    with torch.no_grad():
        sae.b_enc.fill_(-100)
    sae.calibrate_(data(), 3)
    assert not sae.encode(data()).any()


def test_folding_and_a_folder_keep_both(tmp_path):
    sae, x = an_sae(BatchTopK(3), refine=0.3, leave_one_out=0.33), data()
    sae.calibrate_(x, 2.0)
    folded = copy.deepcopy(sae)
    folded.fold_scale_(7.0)
    torch.testing.assert_close(folded.encode(x / 7), sae.encode(x) / 7, rtol=1e-10, atol=1e-12)
    save_sae(folded.float(), tmp_path / "sae", {})
    again = load_sae(tmp_path / "sae")
    assert (again.refine, again.leave_one_out) == (0.3, 0.33)
    assert torch.equal(again.encode(x.float() / 7), folded.encode(x.float() / 7))


def test_folders_written_before_there_was_either_still_load(tmp_path):
    save_sae(an_sae(TopK(3)), tmp_path / "sae", {})
    config = read_json(tmp_path / "sae" / "sae.json")
    write_json(
        tmp_path / "sae" / "sae.json",
        {k: v for k, v in config.items() if k not in ("refine", "leave_one_out")},
    )
    assert load_sae(tmp_path / "sae").refine == 0


def test_batch_selection_is_pruned_too():
    sae, x = an_sae(BatchTopK(4), refine=0.3, leave_one_out=0.5), data()
    sae.calibrate_(x, 2.0)
    selected = batch_selected(sae)
    assert selected is not None
    torch.testing.assert_close(selected.encode(x), sae.encode(x))


@pytest.mark.parametrize(
    ("act", "numbers", "words"),
    [
        (
            ReLU,
            {"refine": -0.1},
            "refine is -0.1; it must be from 0 to 1: the size of the refinement step",
        ),
        (ReLU, {"refine": 1.5}, "refine is 1.5"),
        (
            ReLU,
            {"leave_one_out": 1.0},
            "leave_one_out is 1; it must be .* a share of the active latents",
        ),
        (lambda: JumpReLU(L), {"refine": 0.3}, "jump_relu has parameters; use one of relu, topk"),
        (lambda: Gated(L), {"refine": 0.3}, "gated has parameters"),
    ],
)
def test_what_is_refused(act, numbers, words):
    with pytest.raises(ValueError, match=words):
        SAE(D, L, act(), **numbers)
