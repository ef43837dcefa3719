"""The causal rows as compositions: what weight 0 is, what a switch switches, what is refused."""

from dataclasses import replace

import pytest
import torch

from helpers import byte_tokenizer, tiny_corpus, tiny_model
from saelab.ground.stream import ActivationStream
from saelab.lm.model import wrap
from saelab.runs import Optim, Run, Source, Spec
from saelab.terms.base import Objective
from saelab.testing.variants import BATCH, SparseSource, Subject
from saelab.text.windows import load_windows
from saelab.train import Training
from saelab.types import value_at
from saelab.variants import build
from saelab.variants.baselines import batch_topk
from saelab.variants.causal import with_kl, with_metric


def trained(variant, **settings):
    run = Run(
        Spec(variant, 64, 4.0, settings),
        Source(tokens=30 * BATCH, batch=BATCH),
        Optim(lr=3e-3, warmup=5),
    )
    training = Training([run], SparseSource())
    list(training)
    return training.state()


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("causal", {"weight": 0, "refine": 0}),
        ("causal", {"weight": 0, "refine": 0, "per_token": 1}),
        ("end_to_end", {"weight": 0}),
        ("kl_finetune_25", {"weight": 0}),
        ("kl_finetune_25", {"share": 0}),
    ],
)
def test_weight_zero_is_the_base_bit_for_bit(variant, settings):
    base, mine = trained("batch_topk", anneal=3.0), trained(variant, anneal=3.0, **settings)
    assert base.keys() == mine.keys() and all(torch.equal(base[name], mine[name]) for name in base)
    spec = Spec(variant, 64, 4.0, settings)
    assert not build(spec, 16, 0).needs and not build(spec, 16, 0).lm  # it asks for no model either


def test_a_finetune_is_the_base_until_it_starts():
    runs = [
        Run(
            Spec(variant, 64, 4.0),
            Source(tokens=40 * BATCH, batch=BATCH),
            Optim(lr=3e-3, warmup=5, decay=0.0),
        )
        for variant in ("batch_topk", "kl_finetune_25")
    ]
    training = Training(runs, SparseSource())
    for progress in training:
        base, mine = (member.sae.W_dec for member in training.members)
        assert torch.equal(base, mine) == (progress.step <= 30)


def test_the_model_is_asked_only_by_those_that_run_it():
    asked = {}
    for name, settings in [
        ("causal", {}),
        ("causal", {"per_token": 1.0}),
        ("causal", {"finetune": 0.1}),
        ("end_to_end", {}),
    ]:
        variant = build(Spec(name, 64, 4.0, settings), 16, 0)
        assert variant.needs and ("windows" in variant.batches) == variant.lm
        asked[name, *settings] = variant.lm
    assert asked == {
        ("causal",): False,
        ("causal", "per_token"): True,
        ("causal", "finetune"): True,
        ("end_to_end",): True,
    }


def test_weights_follow_their_schedules():
    def weight(variant, term, progress, **settings):
        terms = build(Spec(variant, 64, 4.0, settings), 16, 0).objective.terms
        return value_at(next(t.weight for t in terms if t.name == term), progress)

    assert [weight("causal", "metric", p) for p in (0.0, 0.1, 0.2, 1.0)] == pytest.approx(
        [0, 1, 2, 2]
    )
    assert [
        weight("kl_finetune_25", "kl", p) for p in (0.0, 0.75, 0.775, 0.8, 1.0)
    ] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [weight("kl_finetune_5", "kl", p) for p in (0.94, 0.96)] == [0, 1]
    anchored = [
        weight("causal", term, 0.9, finetune=0.2, finetune_weight=3.0) for term in ("metric", "kl")
    ]
    assert anchored == [2, 3]  # the metric stays as an anchor
    assert build(Spec("kl_finetune_5", 64, 4.0), 16, 0).restart == 0.05
    assert build(Spec("kl_finetune_25", 64, 4.0, {"restart": 0.0}), 16, 0).restart == 0


def test_parts_join_any_base():
    base = batch_topk(16, 64, l0=4.0)
    both = with_kl(with_metric(base, clusters=2), weight=1)
    assert isinstance(both.objective, Objective) and [t.name for t in both.objective.terms] == [
        "mse",
        "aux",
        "metric",
        "kl",
    ]
    assert (
        both.sae is base.sae
        and len(both.needs) == 2
        and with_kl(base, weight=0) is base
        and with_metric(base, weight=0) is base
    )
    on_frontier = build(Spec("causal_on_frontier", 64, 4.0), 16, 0)
    assert on_frontier.events and on_frontier.objective.terms[-1].name == "metric"


@pytest.mark.parametrize(
    "base", ["topk", "batch_topk", "matryoshka", "jump_relu", "frontier", "standard"]
)
def test_the_metric_and_kl_train_on_every_base(base):
    def joined(spec, d_in, seed, hook):
        parts = {
            "kl": {"weight": 1, "windows": 0.5, "ramp": 0},
            "metric": {"weight": 4, "rows": 500, "ramp": 0},
        }
        return build(replace(spec, parts=parts), d_in, seed, hook)

    subject = Subject(base, joined)
    training = subject.training(subject.run(4))
    names = [set(record.losses) for progress in training for record in progress.records]
    assert all({"metric", "kl"} < row for row in names) and len(names) == 4


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "gemma2"])
def test_all_rows_train_and_resume_on_language_models(tmp_path, arch):
    lm = wrap(tiny_model(arch).requires_grad_(False), byte_tokenizer(), "tiny")
    corpus = tiny_corpus(tmp_path / "a.txt")
    source = Source(
        corpus=str(corpus),
        context=32,
        batch=128,
        buffer=1_000,
        lm_batch=8,
        tokens=8 * 128,
        model="tiny",
    )
    small = {"rows": 300.0, "ramp": 0.0}
    specs = [
        Spec("causal", 64, 4.0, small | {"clusters": 2.0, "finetune": 0.3}, "clusters"),
        Spec("causal", 64, 4.0, small | {"per_token": 1.0}, "per_token"),
        Spec("causal_on_frontier", 64, 4.0, small),
        Spec("causal", 64, 4.0, small | {"price": 0.3, "price_updates": 3.0}, "price"),
        Spec("causal_on_standard", 64, 4.0, small | {"price": 0.3}),
        Spec("end_to_end", 64, 4.0),
        Spec("kl_finetune_25", 64, 4.0),
        Spec("batch_topk", 64, 4.0),
    ]

    def training():
        stream = ActivationStream(lm, load_windows(source, lm, "train"), source)
        return Training([Run(spec, source, Optim(lr=3e-3, warmup=2)) for spec in specs], stream)

    alone = Training(
        [Run(Spec("batch_topk", 64, 4.0), source, Optim(lr=3e-3, warmup=2))], training().source
    )
    list(alone)
    whole, resumed = training(), training()
    states = [whole.state() for _ in whole]
    resumed.load(states[4])
    list(resumed)
    assert all(torch.equal(value, resumed.state()[name]) for name, value in states[-1].items())
    # a run's numbers do not depend on who trains beside it
    beside = whole.members[-1].sae.state_dict()
    assert all(
        torch.equal(tensor, beside[name])
        for name, tensor in alone.members[0].sae.state_dict().items()
    )
    assert all(result.measured.explained_variance > -1 for result in whole.results())
    assert all(parameter.grad is None for parameter in lm.model.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": -1}, "weight is -1; it must be at least 0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"ramp": 1.5}, "ramp is 1.5; it must be from 0 to 1: of training"),
        ({"clusters": 0}, "clusters is 0; it must be a whole number, at least 1"),
        ({"rows": 0}, "rows is 0; it must be a whole number, at least 1"),
        ({"clusters": 1.5}, "clusters is 1.5; it must be a whole number"),
        ({"restart": float("inf")}, "restart is inf; it must be at least 0, and finite"),
        ({"finetune": 2}, "finetune is 2; it must be from 0 to 1: of training"),
        ({"rotate": 0.5}, r"rotate is 0.5; it must be 1 \(on\) or 0 \(off\)"),
        ({"rotate": 1, "isotropic": 1}, "each replace the metric; switch on one of them at most"),
        ({"per_token": 1, "rotate": 1}, "each replace the metric"),
    ],
)
def test_numbers_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        build(Spec("causal", 64, 4.0, settings), 16, 0)


def test_a_share_is_named_as_it_was_given():
    with pytest.raises(ValueError, match=r"^share is 2; it must be from 0 to 1: of training"):
        build(Spec("kl_finetune_25", 64, 4.0, {"share": 2.0}), 16, 0)


def test_a_late_kl_phase_starts_gently():
    """With the moments of the loss before, Adam's first steps on KL would be so large that the SAE
    is lost.
    """
    subject = Subject("kl_finetune_25", build, {"weight": 16.0})
    training = subject.training(subject.run(80))
    found = [record.explained_variance for progress in training for record in progress.records]
    assert min(found[60:]) > found[59] - 0.1
    moments = training.members[0].optimizer.state_dict()["state"]
    assert {int(row["step"]) for row in moments.values()} == {20}
