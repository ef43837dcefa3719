"""Several batches in one step: a variant that reads pairs and labels, from text and from worlds."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers import byte_tokenizer, tiny_model
from saelab.ground.stream import ActivationStream
from saelab.lm.model import wrap
from saelab.runs import Optim, Run, Source, Spec, WorldSource
from saelab.sae.activations import BatchTopK, Priced, TopK
from saelab.sae.module import SAE
from saelab.synth.worlds import WORLDS, build_world
from saelab.terms.base import Objective, Step, Term, Variant
from saelab.testing.fakes import SparseSource
from saelab.testing.variants import variant_checks
from saelab.text.windows import load_windows
from saelab.train import Training
from saelab.types import Cursor, Labelled, Pairs, Tokens, Windows
from saelab.variants import build

STEPS, BATCH, L = 12, 96, 48
PAIRS, LABELS = {"pairs": Pairs}, {"labels": Labelled}


class Probe(nn.Module):
    """A linear readout of the first labelled factor from codes, which trains along."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(L))

    def forward(self, step: Step) -> torch.Tensor:
        side = step.side("labels")
        assert isinstance(side.batch, Labelled)
        label = side.batch.labels[:, -1]
        known = label >= 0
        logits = (side.z @ self.weight)[known]
        target = (label[known] > 0).to(logits)
        return nn.functional.binary_cross_entropy_with_logits(logits, target)


def nearer(step: Step) -> torch.Tensor:
    """Mean codes of pairs of the first kind should agree."""
    side = step.side("pairs")
    assert isinstance(side.batch, Pairs)
    first, second = side.in_windows(side.z).mean(2)  # [B, L] each
    return (first - second)[side.batch.kind == side.batch.kind[0]].square().sum(1).mean()


def reading(**others):
    """A build of variants that read these batches beside the tokens, and have a term on each."""
    terms = {"pairs": lambda: Term("nearer", nearer), "labels": lambda: Term("probe", Probe())}

    def make(spec, d_in, seed, hook=None) -> Variant:
        variant = build(spec, d_in, seed, hook)
        more = [terms[name]() for name in others]
        objective = Objective(*variant.objective.terms, *more)
        return replace(variant, objective=objective, batches={"main": Tokens, **others})

    return make


def world_source(name: str) -> WorldSource:
    return WorldSource(name, dict(WORLDS[name].settings), STEPS * BATCH, BATCH, 3)


def text_source() -> tuple[Source, ActivationStream]:
    source = Source(
        corpus="stdlib",
        context=32,
        batch=BATCH,
        buffer=640,
        lm_batch=8,
        tokens=STEPS * BATCH,
        model="tiny",
    )
    lm = wrap(tiny_model("llama").requires_grad_(False), byte_tokenizer(), "tiny")
    with pytest.MonkeyPatch.context() as patch:
        # few files are read, so that few are labelled
        patch.setattr("saelab.text.windows.AT_ONCE", 4)
        return source, ActivationStream(lm, load_windows(source, lm, "train"), source)


@pytest.fixture(scope="module")
def grounds():
    """What each ground's runs are of, its stream, and what it can give beside tokens."""
    s4, s5 = world_source("s4"), world_source("s5")
    fake = Source(tokens=STEPS * BATCH, batch=BATCH)
    return {
        "text": (*text_source(), PAIRS | LABELS),
        "s4": (s4, build_world(s4), PAIRS | LABELS),
        "s5": (s5, build_world(s5), LABELS),
        "fake": (fake, SparseSource(batch=BATCH), PAIRS | LABELS),
    }


def a_run(source, variant="batch_topk", seed=0, **settings) -> Run:
    return Run(Spec(variant, L, 4.0, settings), source, Optim(lr=3e-3, warmup=3), seed)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["text", "s4", "s5", "fake"])
def test_pairs_and_labels_are_read_in_one_step_and_resumed_bit_for_bit(grounds, name):
    source, stream, others = grounds[name]
    whole = Training([a_run(source)], stream, build=reading(**others))
    kept = {progress.step: whole.state() for progress in whole}
    records = [
        r for p in Training([a_run(source)], stream, build=reading(**others)) for r in p.records
    ]
    assert set(records[0].losses) >= {"mse", *({"nearer"} if "pairs" in others else ()), "probe"}
    assert records[-1].losses["probe"] < records[0].losses["probe"]  # it trains along
    for stop in (1, 7):
        resumed = Training([a_run(source)], stream, build=reading(**others))
        resumed.load(kept[stop])
        list(resumed)
        assert_equal(kept[STEPS], resumed.state())


@pytest.mark.parametrize("name", ["text", "s4"])
def test_members_with_different_needs_share_one_stream(grounds, name):
    source, stream, _ = grounds[name]
    asked = []

    class Watched:
        """The stream, which notes what it is asked for."""

        def __getattr__(self, attribute):
            return getattr(stream, attribute)

        def batches(self, main, start, sides=()):
            asked.append((main, set(sides)))
            for views in stream.batches(main, start, sides):
                asked.append(len(views[0].sides))
                yield views

    reads = [{}, PAIRS, LABELS, PAIRS | LABELS]

    def by_seed(spec, d_in, seed, hook=None):
        return reading(**reads[seed])(spec, d_in, seed, hook)

    runs = [a_run(source, seed=seed) for seed in range(4)]
    group = Training(runs, Watched(), build=by_seed)
    list(group)
    assert asked == [(Tokens, {Pairs, Labelled}), *[2] * STEPS]  # once a step, for the union
    together = group.state()
    for i, run in enumerate(runs):
        alone = Training([run], stream, build=by_seed)
        list(alone)
        mine = {n[2:]: t for n, t in together.items() if n.startswith(f"{i}.")}
        assert_equal({n[2:]: t for n, t in alone.state().items() if n.startswith("0.")}, mine)


def test_a_source_that_lacks_a_batch_is_refused_in_a_sentence(grounds):
    source, stream, _ = grounds["s5"]
    with pytest.raises(
        ValueError,
        match=r"^topk reads Pairs: world 's5' has no pairs: nothing .* It has Tokens, Labelled; or",
    ):
        Training([a_run(source, "topk")], stream, build=reading(**PAIRS))
    s2 = world_source("s2")
    with pytest.raises(
        ValueError, match="world 's2' has no labelled batches: its process gives no"
    ):
        Training([a_run(s2)], build_world(s2), build=reading(**LABELS))
    with pytest.raises(ValueError, match="world 's2' has no pairs"):
        next(build_world(s2).batches(Tokens, None, [Pairs]))
    source, text, _ = grounds["text"]
    other = replace(source, corpus="my.txt")
    text = ActivationStream(text.lm, text.windows, other)
    with pytest.raises(ValueError, match=r"reads Labelled: corpus my\.txt has no labels of tokens"):
        Training([a_run(other)], text, build=reading(**LABELS))


def test_a_batch_that_the_variant_does_not_read_is_refused(grounds):
    def asks(*arguments):
        variant = build(*arguments)
        return replace(variant, objective=Objective(*variant.objective.terms, Term("n", nearer)))

    source, stream, _ = grounds["fake"]
    with pytest.raises(
        TypeError, match=r"no batch 'pairs', it has main; .* says so, as in batches"
    ):
        list(Training([a_run(source)], stream, build=asks))
    with pytest.raises(ValueError, match="main batch is Tokens or Windows; given"):
        replace(build(Spec("topk", L, 4.0), 16, 0), batches={"main": Pairs})


def test_the_variant_passes_the_battery():
    checks = dict(variant_checks("batch_topk", build=without_probe))
    for name in ("seeds", "codes", "resume", "lock_step", "weightless_term"):
        checks[name]()


def without_probe(*arguments):
    return reading(**PAIRS)(*arguments)


# What a side is coded with ------------------------------------------------------------------------


def a_step(sae: SAE, others, *, d_in=16) -> Step:
    views, _ = next(SparseSource(d_in=d_in).batches(Tokens, Cursor(), list(others.values())))
    x = views.main.flat
    pre, z = sae.codes(x, 0.5)
    batches = {"main": views.main, **{name: views.sides[kind] for name, kind in others.items()}}
    dead, generator = torch.zeros(L, dtype=torch.bool), torch.Generator()
    x_hat = sae.decode(z)
    return Step(sae, batches, x, pre, z, x_hat, dead, 0.5, generator)


def an_sae(act, refine=0.0) -> SAE:
    return SAE(16, L, act, refine=refine, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("refine", [0.0, 0.2])
def test_a_side_is_coded_with_the_main_batchs_threshold(refine):
    step = a_step(an_sae(BatchTopK(4.0), refine), PAIRS)
    side = step.side("pairs")
    smallest = step.pre[step.z > 0].min()
    assert torch.equal(side.z > 0, side.pre >= smallest)
    assert not torch.equal(side.z, step.sae.codes(side.x, 0.5)[1])  # not its own selection
    # a position's codes do not depend on the others of its batch
    pairs = step.batches["pairs"]
    assert isinstance(pairs, Pairs)
    one = torch.tensor([2])
    alone = Pairs(pairs.first.rows(one), pairs.second.rows(one), pairs.kind[one], pairs.kinds)
    few = replace(step, batches={"main": step.batch, "pairs": alone}).side("pairs")
    z = side.in_windows(side.z)[:, 2:3]
    torch.testing.assert_close(few.in_windows(few.z), z, rtol=1e-5, atol=1e-6)
    side.z.sum().backward()
    assert step.sae.W_enc.grad is not None and step.sae.W_enc.grad.abs().sum() > 0


def test_the_main_batch_beside_itself_has_its_own_codes():
    priced = Priced(4.0, L)
    priced.price.copy_(torch.rand(L, generator=torch.Generator().manual_seed(2)))
    for act in (BatchTopK(4.0), TopK(4.0), priced):
        for refine in (0.0, 0.2):
            step = a_step(an_sae(act, refine), {})
            again = replace(step, batches={"main": step.batch, "again": Tokens(step.x)}).side(
                "again"
            )
            assert torch.equal(again.z, step.z) and torch.equal(again.x_hat, step.x_hat)


def test_a_side_is_coded_once_and_may_be_the_main_batch():
    step = a_step(an_sae(TopK(4.0)), PAIRS)
    assert step.side("pairs") is step.side("pairs")
    assert replace(step, batches={"main": step.batch, "same": step.batch}).side("same").z is step.z
    with pytest.raises(TypeError, match="shuffled tokens, no windows"):
        step.in_windows(step.z)
    with pytest.raises(TypeError, match="this step has no windows"):
        step.on_windows()


def test_order_within_windows_matters_to_a_loss_on_windows():
    """Permuting the tokens of every window changes a loss that compares neighbours, and no loss on
    tokens.
    """

    class Permuted(SparseSource):
        def batches(self, main, start, sides=()):
            for views, after in super().batches(main, start, sides):
                w = views.main
                order = torch.randperm(w.x.shape[1], generator=torch.Generator().manual_seed(4))
                mixed = Windows(*(t[:, order] for t in (w.x, w.tokens, w.doc, w.pos, w.keep)))
                yield replace(views, main=mixed), after

    def neighbours(step: Step) -> torch.Tensor:
        return step.in_windows(step.z).diff(dim=1).square().sum(2).mean()

    def ordered(*arguments):
        variant = build(*arguments)
        objective = Objective(*variant.objective.terms, Term("neighbours", neighbours))
        return replace(variant, objective=objective, batches={"main": Windows})

    losses = []
    for stream in (SparseSource(batch=BATCH), Permuted(batch=BATCH)):
        source = Source(tokens=STEPS * BATCH, batch=BATCH)
        training = Training([a_run(source, "topk")], stream, build=ordered)
        losses.append(next(itertools.islice(training, 1)).records[0].losses)
    assert losses[0]["mse"] == pytest.approx(losses[1]["mse"], rel=1e-5)
    assert losses[0]["neighbours"] != pytest.approx(losses[1]["neighbours"], rel=1e-2)
