"""Rows as one writes them on the command line."""

import pytest

from saelab.experiments.plan import run_id
from saelab.experiments.tables.rows import at_l0, at_rate, parse_row
from saelab.experiments.tables.standard import OWN
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.runs import Optim, Run, Source, Spec
from saelab.variants import settings_of


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("batch_topk", Spec("batch_topk")),
        ("causal:rotate=1", Spec("causal", settings={"rotate": 1.0}, label="causal-rotate_1")),
        (
            "frontier:tilt=0:sorts=0",
            Spec("frontier", settings={"tilt": 0.0, "sorts": 0.0}, label="frontier-tilt_0-sorts_0"),
        ),
        ("null=causal:rotate=1", Spec("causal", settings={"rotate": 1.0}, label="null")),
        ("base = batch_topk", Spec("batch_topk", label="base")),
        ("topk=topk", Spec("topk")),  # its own name is no label
        ("topk+metric", Spec("topk", parts={"metric": {}})),
    ],
)
def test_a_row_is_a_variant_with_numbers_and_a_name(text, row):
    assert parse_row(text) == row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("casual:rotate=1", "did you mean 'causal'"),
        ("causal:rotat=1", "did you mean 'rotate'"),
        ("causal:rotate", "'rotate' is not SETTING=NUMBER"),
        ("causal:rotate=yes", "'rotate=yes' is not SETTING=NUMBER"),
        ("=causal:rotate=1", "empty name"),
        ("my row=causal", "names folders"),
    ],
)
def test_what_is_no_row(text, message):
    with pytest.raises(ValueError, match=message):
        parse_row(text)


def test_a_tables_rows_carry_their_numbers_beside_the_worlds():
    plan = plan_of(
        WorldTable(
            "s1", ("batch_topk", "null=causal:rotate=1", "plain=batch_topk:anneal=1"), (0, 1)
        )
    )
    settings = {run.spec.name: run.spec.settings for run in plan.runs}
    own = {
        name: value
        for name, value in OWN["s1"]["causal"].items()
        if value != settings_of("causal")[name]
    }
    assert settings == {
        "batch_topk": {"anneal": 3},
        "null": {"anneal": 3, "rotate": 1, **own},
        "plain": {"anneal": 1},
    }
    assert {(c.baseline, c.treatment) for c in plan.contrasts} == {
        ("batch_topk", "null"),
        ("batch_topk", "plain"),
    }
    again = plan_of(WorldTable("s1", ("other_name=causal:rotate=1",), (0,)))
    # a name is no content
    assert run_id(again.runs[0]) == run_id(
        next(run for run in plan.runs if run.spec.name == "null")
    )


def test_a_row_says_at_which_l0_and_rate_it_is():
    spec = at_l0(parse_row("null=causal:rotate=1"), 64)
    assert (spec.l0, spec.name) == (64, "null-l0_64")
    run = Run(spec, Source(), Optim(lr=1e-3, warmup=7), seed=2)
    other = at_rate(run, 2e-3)
    assert other.optim == Optim(lr=2e-3, warmup=7) and other.spec.name == "null-l0_64-lr0.002"
    assert run_id(other) == run_id(at_rate(at_rate(run, 5e-3), 2e-3)) != run_id(run)


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two rows are called 'batch_topk'"):
        plan_of(WorldTable("s1", ("batch_topk", "batch_topk=causal"), (0,)))
