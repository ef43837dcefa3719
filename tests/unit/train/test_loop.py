"""The loop: what it refuses, what it measures, what it records, and how it stops."""

import threading
from dataclasses import replace

import pytest
import torch

from saelab.runs import Run, Source, Spec
from saelab.terms.base import Event, Need, Objective, Term
from saelab.testing.variants import BATCH, SparseSource
from saelab.train import Training
from saelab.train import loop as loop_module
from saelab.types import Cursor, Labelled, Pairs, Tokens, Windows
from saelab.variants import build
from unit.train.trainings import a_run, finished

# Refusals -----------------------------------------------------------------------------------------


def test_the_published_failure_is_refused():
    run = Run(Spec("topk", 64, 4), Source(tokens=1_000, batch=2_048))
    with pytest.raises(
        ValueError,
        match="1,000 tokens are fewer than one batch of 2,048: 0 training steps; raise tokens or",
    ):
        Training([run], SparseSource())


def test_runs_of_different_sources_are_refused():
    one, other = a_run(steps=30), a_run(steps=31)
    for runs in ([one, other], []):
        with pytest.raises(
            ValueError, match="must share one Source, and there must be at least one"
        ):
            Training(runs, SparseSource())


def test_a_state_of_other_runs_is_refused():
    state = finished(Training([a_run("standard", steps=2)], SparseSource())).state()
    for other in (a_run("gated", steps=2), a_run("standard", steps=2, n_latents=32)):
        with pytest.raises(ValueError, match="the checkpoint does not belong to these runs"):
            Training([other], SparseSource()).load(state)
    with pytest.raises(ValueError, match="the checkpoint does not belong to these runs"):
        Training([a_run("standard", steps=2)] * 2, SparseSource()).load(state)


# What a variant needs of the stream ---------------------------------------------------------------


def with_needs(*needs: Need, lm: bool = False):
    return lambda *asked: replace(build(*asked), needs=needs, lm=lm)


def test_a_need_is_computed_once_for_all_runs_that_name_it():
    calls, seen = [], []

    def count(source):
        calls.append(source.d_in)
        return {"value": torch.tensor(7.0)}

    def look(step):
        seen.append((step.stats.keys(), float(step.stats["count.value"]), step.lm, step.scale))
        return step.x_hat.sum() * 0

    def watched(spec, d_in, seed, hook):
        variant = build(spec, d_in, seed, hook)
        return replace(
            variant,
            objective=Objective(*variant.objective.terms, Term("look", look)),
            needs=(Need("count", count),),
        )

    source = SparseSource()
    training = Training([a_run(steps=3), a_run(steps=3, seed=1)], source, build=watched)
    assert not calls  # nothing before the first step
    finished(training)
    assert calls == [16] and seen == [({"count.value"}, 7.0, None, source.stats.scale)] * 6


def test_a_model_that_the_source_lacks_is_refused_before_training():
    class Mute(SparseSource):
        def __init__(self):
            super().__init__()
            self.lm = None

    need = Need("never", lambda source: {}, lm=True)
    for asks in (with_needs(need), with_needs(lm=True)):
        with pytest.raises(
            ValueError,
            match=r"^topk asks the model behind the activations .*these have none; train it on a",
        ):
            Training([a_run()], Mute(), build=asks)
    finished(Training([a_run(steps=1)], Mute(), build=with_needs(replace(need, lm=False))))


def test_a_variant_that_runs_the_model_is_given_it():
    seen = []

    def look(step):
        seen.append(step.lm)
        return step.x_hat.sum() * 0

    def asks(spec, d_in, seed, hook):
        return replace(
            build(spec, d_in, seed, hook), objective=Objective(Term("look", look)), lm=seed == 1
        )

    source = SparseSource()
    finished(Training([a_run(steps=1), a_run(steps=1, seed=1)], source, build=asks))
    assert seen == [None, source.lm]


# Steps, records, events ---------------------------------------------------------------------------


def test_every_step_yields_and_the_last_one_is_recorded():
    training = Training([a_run(steps=450), a_run("standard", steps=450, seed=5)], SparseSource())
    seen = list(training)
    assert [progress.step for progress in seen] == list(
        range(1, 451)
    ) and training.step == training.steps == 450
    recorded = [progress for progress in seen if progress.records]
    # every 450 // 200 steps
    assert [progress.step for progress in recorded] == list(range(2, 451, 2))
    last = recorded[-1].records
    assert [(r.run, r.step, r.tokens) for r in last] == [
        (0, 450, 450 * BATCH),
        (1, 450, 450 * BATCH),
    ]
    assert last[0].coefficient is None and last[1].coefficient > 0
    assert set(last[0].losses) == {"mse", "aux"} and set(last[1].losses) == {"mse", "sparsity"}
    assert last[0].loss == pytest.approx(
        last[0].losses["mse"] + last[0].losses["aux"] / 32, rel=1e-5
    )
    assert last[0].lr == pytest.approx(3e-3 / 135, rel=1e-6)
    assert list(training) == []  # finished is finished


def test_explained_variance_of_a_record_is_against_the_streams_mean():
    source = SparseSource()
    training = Training([a_run(steps=1)], source)
    member = training.members[0]
    x = next(source.batches(Tokens, Cursor()))[0].main.flat * source.stats.scale
    with torch.no_grad():
        x_hat = member.sae.decode(member.sae.act.train_codes(member.sae.pre(x), 0.0))
    expected = (
        1 - (x - x_hat).square().sum() / (x - source.stats.mean * source.stats.scale).square().sum()
    )
    record = next(iter(training)).records[0]
    assert record.explained_variance == pytest.approx(expected.item(), rel=1e-4)
    assert record.l0 == 4.0


def test_events_happen_once_at_their_fraction():
    calls = []

    def noted(spec, d_in, seed, hook):
        event = Event(
            (0.0, 0.15, 0.5, 1.0),
            lambda sae, optimizer, step: calls.append(round(step.progress * 40) + 1),
        )
        return replace(build(spec, d_in, seed, hook), events=(event,))

    finished(Training([a_run(steps=40)], SparseSource(), build=noted))
    assert calls == [1, 6, 20, 40]


def test_windows_are_read_by_all_when_one_asks_for_them():
    shapes = []

    class WithBos(SparseSource):
        """The first position of every window is no activation to train on: a huge one."""

        def batches(self, main, start, sides=()):
            for views, following in super().batches(main, start, sides):
                if main is Windows:
                    batch = views.main
                    first = batch.pos == 0
                    x = batch.x.masked_fill(first.unsqueeze(-1), 1e6)
                    views = replace(views, main=replace(batch, x=x, keep=~first))
                yield views, following

    source = WithBos()

    def windowed(spec, d_in, seed, hook):
        variant = build(spec, d_in, seed, hook)

        def note(sae, optimizer, step):
            shapes.append(tuple(step.x.shape))
            ordered, keep = step.in_windows(step.z), step.batch.keep
            assert torch.equal(ordered[keep], step.z) and not ordered[~keep].any()

        kind = Windows if seed else Tokens
        return replace(variant, batches={"main": kind}, events=(Event((0.0,), note),))

    training = Training([a_run(steps=3, seed=0), a_run(steps=3, seed=1)], source, build=windowed)
    finished(training)
    assert training.main is Windows and shapes == [(BATCH // 16 * 15, 16)] * 2
    # the masked positions were not learned from
    assert all(m.sae.b_dec.detach().abs().max() < 10 for m in training.members)


def test_reading_windows_does_not_change_what_is_trained():
    by_kind = []
    for batches in (
        {"main": Tokens},
        {"main": Windows},
        {"main": Tokens, "windows": Windows},
        {"main": Tokens, "pairs": Pairs, "labels": Labelled},
    ):
        run = a_run(steps=5)
        training = Training(
            [run], SparseSource(), build=lambda *a, b=batches: replace(build(*a), batches=b)
        )
        by_kind.append(finished(training).members[0].sae.state_dict())
    assert all(
        torch.equal(by_kind[0][name], other[name]) for other in by_kind[1:] for name in other
    )


def test_order_is_refused_where_there_is_none():
    def ordered(step):
        return step.in_windows(step.z).sum()

    def unordered(*arguments):
        variant = build(*arguments)
        return replace(
            variant, objective=Objective(*variant.objective.terms, Term("ordered", ordered))
        )

    with pytest.raises(TypeError, match=r'batches=\{"main": Windows\}'):
        finished(Training([a_run(steps=1)], SparseSource(), build=unordered))


def test_bf16_keeps_fp32_weights_and_learns():
    training = finished(Training([a_run(steps=150, amp="bf16")], SparseSource()))
    member = training.members[0]
    assert all(p.dtype == torch.float32 for p in member.sae.parameters())
    assert training.results()[0].measured.explained_variance > 0.4


# The end ------------------------------------------------------------------------------------------


def test_results_are_in_the_models_units():
    source = SparseSource()
    training = finished(Training([a_run(steps=150)], source))
    result, member = training.results()[0], training.members[0]
    x = source.draw(512, torch.Generator().manual_seed(5))
    scaled = member.sae(x * member.scale) / member.scale
    torch.testing.assert_close(result.sae(x), scaled.detach(), rtol=1e-4, atol=1e-4)
    spread = (x - x.mean(0)).square().sum()
    assert 1 - (x - result.sae(x)).square().sum() / spread == pytest.approx(
        result.measured.explained_variance, abs=0.05
    )
    # the one in training is left as it was
    assert member.sae.W_dec.requires_grad and not result.sae.W_dec.requires_grad


def test_dead_means_quiet_in_training_and_silent_afterwards():
    training = finished(Training([a_run(steps=30)], SparseSource()))
    member = training.members[0]
    with torch.no_grad():
        member.sae.b_enc[:16] = -100.0  # silent from now on
    member.quiet.zero_()
    assert training.results()[0].measured.dead == 0  # but fired lately
    member.quiet.fill_(member.dead_after)
    # the others fire now although they were quiet
    assert training.results()[0].measured.dead == 0.25
    member.quiet[8:] = 0
    assert training.results()[0].measured.dead == 0.125


def test_an_event_gives_latents_a_new_chance():
    def quiet_after(*at):
        def evented(spec, d_in, seed, hook):
            variant = build(spec, d_in, seed, hook)
            with torch.no_grad():
                variant.sae.b_enc[:3] = -100.0
            return replace(variant, events=(Event(at, lambda sae, optimizer, step: None),))

        return (
            finished(Training([a_run(steps=20)], SparseSource(), build=evented))
            .members[0]
            .quiet[:3]
            .tolist()
        )

    assert quiet_after() == [20 * BATCH] * 3 and quiet_after(0.25, 0.5) == [10 * BATCH] * 3


def test_quiet_counts_activations_since_a_latent_fired():
    training = Training([a_run(steps=30)], SparseSource())
    member = training.members[0]
    with torch.no_grad():
        member.sae.b_enc[:3] = -100.0
    steps = iter(training)
    for _ in range(2):
        next(steps)
    assert (
        member.quiet[:3].tolist() == [2 * BATCH] * 3
        and member.dead_after == 3 * BATCH
        and not member.dead.any()
    )
    next(steps)
    assert member.dead[:3].all() and member.quiet.min() == 0


def test_calibration_does_not_depend_on_the_group(monkeypatch):
    monkeypatch.setattr(loop_module, "CALIBRATION_ENTRIES", 64 * 1_000)
    narrow, wide = a_run("batch_topk"), a_run("batch_topk", n_latents=256)
    together = finished(Training([narrow, wide], SparseSource())).results()
    for run, result in zip((narrow, wide), together, strict=True):
        alone = finished(Training([run], SparseSource())).results()[0]
        assert (
            torch.equal(alone.sae.act.threshold, result.sae.act.threshold)
            and alone.measured == result.measured
        )


def test_a_state_is_a_copy():
    training = Training([a_run("standard", steps=10)], SparseSource())
    steps = iter(training)
    next(steps)
    state = training.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    resumed = Training([a_run("standard", steps=10)], SparseSource())
    resumed.load(state)
    finished(resumed)
    next(steps)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())


# Runs side by side --------------------------------------------------------------------------------


class ThreadsSeen:
    """A step's loss term that notes on which thread it runs."""

    def __init__(self):
        self.names = set[str]()

    def __call__(self, step):
        self.names.add(threading.current_thread().name)
        return step.x.new_zeros(())


@pytest.mark.parametrize(("lm", "code"), [(False, ""), (True, ""), (False, "of a script")])
def test_runs_step_side_by_side_unless_they_share_something(lm, code):
    """With two threads the weights are those of one thread, bit for bit; a model's hooks and a
    script's own state are for one run at a time.
    """
    before, states, names = torch.get_num_threads(), [], []
    for count in (1, 2):
        seen = ThreadsSeen()

        def joined(*asked, seen=seen):
            variant = build(*asked)
            terms = (*variant.objective.terms, Term("seen", seen, 1.0))
            return replace(variant, objective=Objective(*terms), lm=lm)

        source = SparseSource()
        source.lm = object() if lm else None
        names_and_seeds = [(name, s) for name in ("batch_topk", "matryoshka") for s in (0, 1)]
        runs = [replace(a_run(name, seed=s), code=code) for name, s in names_and_seeds]
        torch.set_num_threads(count)
        try:
            states.append(finished(Training(runs, source, build=joined)).state())
        finally:
            torch.set_num_threads(before)
        names.append(seen.names)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    here = {threading.current_thread().name}
    assert names[0] == here
    assert names[1] == here if lm or code else here.isdisjoint(names[1])
