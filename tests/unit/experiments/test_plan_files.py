"""The plans in `plans/`: they load, their runs can be built, and what they share is the same run."""

import importlib
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from saelab.experiments.load import load_plans
from saelab.experiments.plan import check_plan, run_id, run_name
from saelab.store import read_json
from saelab.variants import check_spec

NAMES = {
    "causal_worlds": (
        *("s1-causal", "s1-causal-x4", "s1b-causal", "s1d-causal", "s1d-causal-x4"),
        *("s1-nces", "s1b-nces"),
    ),
    "price": ("s1-price", "s1b-price"),
}
FOLDER = Path(__file__).parents[3] / "plans"
PLANS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "reference")  # data of others


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_can_be_carried_out(path):
    plans = load_plans(path)
    for plan in plans:
        check_plan(plan)
        for run in plan.runs:
            check_spec(run.spec)
    assert path.stem == "demo" or len(plans) > 1 or plans[0].name == path.stem


def test_the_ablation_takes_over_the_reference_rows(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    rows = importlib.import_module("reference")
    reference = {run_id(run): run.spec.name for run in rows.reference_runs()}
    (plan,) = load_plans(FOLDER / "frontier.py")
    shared = {reference[run_id(run)] for run in plan.runs if run_id(run) in reference}
    assert shared == {"frontier-l0_32", "batch_topk-l0_32", "matryoshka-l0_32"}
    rates = {run.spec.name: run.optim.lr for run in plan.runs if run_id(run) not in reference}
    assert rates.pop("refinement_alone") == rows.RATES["batch_topk"] and {*rates.values()} == {
        rows.RATES["frontier"]
    }


COMMITTED = FOLDER.parent / "docs" / "results"
MADE_BY = [(plan, file) for file in ("causal_worlds", "price") for plan in NAMES[file]]


@pytest.mark.parametrize(("name", "file"), MADE_BY)
def test_a_committed_table_has_a_plan_with_its_rows_and_rates(name, file):
    """Rows, seeds, contrasts, learning rates and identities of what docs/results holds."""
    (plan,) = (plan for plan in load_plans(FOLDER / f"{file}.py") if plan.name == name)
    table = read_json(COMMITTED / f"{name}.json")
    # the name of a run ends with the hash of its content
    assert [run_name(run) for run in plan.runs] == [row["run"] for row in table["rows"]]
    rates = table["facts"]["learning_rates"]
    assert plan.facts["learning_rates"] == rates
    assert {run.spec.name: run.optim.lr for run in plan.runs} == rates
    assert {run.source.tokens for run in plan.runs} == {table["facts"]["tokens"]}
    for key in ("world", "headline", "settings", "length"):
        assert plan.facts[key] == table["facts"][key]
    assert [(c.metric, c.baseline, c.treatment) for c in plan.contrasts] == [
        (c["metric"], c["baseline"], c["treatment"]) for c in table["contrasts"]
    ]


def test_the_demo_has_the_rates_that_its_committed_search_found():
    """Row by row the best one in both metrics that it judges, on other seeds, inside the grid."""
    (search,) = load_plans(FOLDER / "demo_rates.py")
    (demo,) = load_plans(FOLDER / "demo.py")
    table = read_json(COMMITTED / "demo-rates.json")
    assert [run_name(run) for run in search.runs] == [row["run"] for row in table["rows"]]
    assert {run.source for run in search.runs} == {run.source for run in demo.runs}
    assert {run.seed for run in search.runs}.isdisjoint(run.seed for run in demo.runs)
    means = {mean["variant"]: mean["metrics"] for mean in table["means"]}
    metrics = {contrast.metric for contrast in demo.contrasts}
    for run, metric in itertools.product(demo.runs, metrics):
        tried = {
            other.optim.lr: means[other.spec.name][metric]["value"]
            for other in search.runs
            if replace(other.spec, label="") == run.spec
        }
        assert run.optim.lr == max(tried, key=tried.__getitem__)
        assert min(tried) < run.optim.lr < max(tried)
    assert demo.facts["learning_rates"] == "tuned per row (plans/demo_rates.py)"


def test_the_tables_of_worlds_are_a_plan_each():
    plans = load_plans(FOLDER / "worlds.py")
    assert len(plans) == 19 and {len(plan.runs) for plan in plans} == {40}
    assert plans[0].name == "synth-s1" and plans[0].facts["world"] == "s1" and plans[0].sanity
