"""All worlds through one battery: what every world of the table must be, whatever it tests."""

import json
from itertools import islice

import pytest
import torch

from in_world import as_held_out
from saelab.evals import EVALS, standard_evals
from saelab.evals.common.matching import match
from saelab.experiments.tables.standard import SANITY
from saelab.runs import Spec, WorldSource
from saelab.synth.worlds import WORLDS, build_world, configure, entry_of, parameters
from saelab.types import Cursor, Tokens, Windows
from saelab.variants import build, check_spec, settings_of

# built as synthsaebench-512, which stands for them
LARGE = ("synthsaebench-16k", "synthsaebench-2k")
SMALL = [name for name in WORLDS if name not in LARGE]


def source(name: str, seed: int = 3):
    setup = WORLDS[name].setup
    return WorldSource(
        name, dict(WORLDS[name].settings), setup.steps * setup.batch, setup.batch, seed
    )


def world(name: str, seed: int = 3):
    return build_world(source(name, seed))


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_is_one_world(name):
    one, same, other = world(name), world(name), world(name, 4)
    assert torch.equal(one.process.features, same.process.features)
    assert not torch.allclose(one.process.features, other.process.features)
    stream = one.batches(Tokens, Cursor())
    (first, following), (second, _) = ((views.main, after) for views, after in islice(stream, 2))
    again = next(same.batches(Tokens, following))[0].main
    assert torch.equal(second.flat, again.flat) and not torch.equal(first.flat, second.flat)
    assert first.flat.shape == (WORLDS[name].setup.batch, one.d_in)
    sample, again, other = one.sample(64, "truth"), same.sample(64, "truth"), one.sample(64, "x")
    assert torch.equal(sample.x, again.x) and torch.equal(sample.codes, again.codes)
    assert sample.labels is None or torch.equal(sample.labels, again.labels)
    assert not torch.equal(sample.x, other.x)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_unit_and_grouped(name):
    process = world(name).process
    torch.testing.assert_close(process.features.norm(dim=1), torch.ones(len(process.features)))
    members = sorted(i for group in process.groups.values() for i in group)
    assert members == list(range(len(process.features)))
    sample = world(name).sample(2048, "truth").flat
    assert sample.codes.shape == (2048, len(process.features))
    # what the codes leave of x is noise, an offset, or a part without features of its own
    assert (sample.codes > 0).any(0).float().mean() > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_no_sae_starts_at_the_features(name):
    """The SAE of a seed and the world of that seed are drawn from streams of their own."""
    features, setup = world(name).process.features, WORLDS[name].setup

    def nearness(seed: int) -> float:
        start = build(
            Spec("batch_topk", setup.n_latents, setup.k), features.shape[1], seed
        ).sae.W_dec.detach()
        return float(match(start, features).cosine.mean())

    assert nearness(3) < 1.1 * max(nearness(1003), nearness(2003))


@pytest.mark.parametrize("name", SMALL)
def test_windows_are_the_tokens_in_order(name):
    one = world(name)
    if Windows not in one.kinds:
        with pytest.raises(
            ValueError,
            match=f"world '{name}' has no windows: its activations have no order. It has Tokens",
        ):
            next(one.batches(Windows, Cursor()))
        return
    windows, tokens = (next(one.batches(kind, Cursor()))[0].main for kind in (Windows, Tokens))
    assert torch.equal(windows.flat, tokens.flat)
    assert (windows.doc == windows.tokens[:, :1]).all() and (windows.pos.diff(dim=1) > 0).all()
    if one.lm is not None:
        x, state = one.lm.capture(windows.tokens[2:4])
        assert torch.equal(x, windows.x[2:4])
        logits = one.lm.resume(windows.x, state)
        loss = one.lm.loss(logits, windows.tokens)
        chances = logits.log_softmax(-1)
        entropy = -(chances.exp() * chances).sum(-1)[:, :-1]
        assert loss.shape == entropy.shape  # labels are the model's own: it is calibrated
        assert (
            abs(float(loss.mean() - entropy.mean())) < 4 * float(loss.std()) / loss.numel() ** 0.5
        )


@pytest.mark.parametrize("name", SMALL)
def test_an_entry_can_be_run_and_measured(name):
    entry = WORLDS[name]
    assert entry.head in WORLDS
    for variant in ("batch_topk", "matryoshka", "frozen", "jump_relu", "gated", "standard_trimmed"):
        numbers = {
            "anneal": entry.setup.anneal,
            "levels": entry.setup.levels,
            "inner": entry.setup.inner,
        }
        known = settings_of(variant)
        check_spec(
            Spec(
                variant,
                entry.setup.n_latents,
                entry.setup.k,
                {k: v for k, v in numbers.items() if k in known},
            )
        )
    one, scores, sae = (
        world(name),
        {},
        build(Spec("matryoshka", entry.setup.n_latents, entry.setup.k), world(name).d_in, 0).sae,
    )
    sae.act.calibrate_(sae.pre(one.sample(2048, "stats").flat.x), entry.setup.k)
    evals = standard_evals(source(name))
    assert len(evals) == (1 if name.startswith("synthsaebench") else 2)
    for evaluation in map(EVALS.get, evals):
        assert evaluation is not None
        result = evaluation.measure(sae, evaluation.prepare(as_held_out(one)))
        # with those under batch selection
        assert set(result.scores) == {metric.key for metric in evaluation.metrics}
        json.dumps(result.to_json(), allow_nan=False)
        scores |= result.scores
    assert set(entry.headline) <= set(scores)
    assert {wanted.metric for wanted in SANITY.get(name, ())} <= set(scores)
    assert all(score.value is not None or score.reason for score in scores.values())


def test_changes_go_to_the_world_or_to_its_setup():
    settings, setup = configure("s1", {"k": 6, "p": 0.1, "steps": 10})
    assert (
        settings["p"] == 0.1 and (setup.k, setup.steps) == (6, 10) and isinstance(setup.steps, int)
    )
    assert parameters("s2_amp1") != parameters("s2")
    assert entry_of("s1").setup.k != 6


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("s9", {}, "no world is called 's9'"),
        ("s2-amp1", {}, "did you mean 's2_amp1'?"),
        ("s1", {"ratoi": 2}, "world 's1' has no number 'ratoi' (did you mean 'ratio'?)"),
        ("s1", {"p": float("nan")}, "p is nan; it must be a finite number"),
        ("s1", {"steps": 0}, "steps is 0; it must be a whole number, 1 or more"),
        ("s1", {"batch": 1.5}, "batch is 1.5; it must be a whole number"),
        ("s1", {"lr": -1}, "lr is -1; it must be 0 or more"),
    ],
)
def test_what_cannot_be_configured(name, changes, words):
    with pytest.raises(ValueError) as refused:
        configure(name, changes)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", WORLDS)
def test_numbers_out_of_range_are_refused(name):
    for number in parameters(name):
        with pytest.raises(ValueError, match=number):
            build_world(WorldSource(name, {**WORLDS[name].settings, number: -1e9}, 1024, 512, 0))
