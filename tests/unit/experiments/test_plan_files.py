"""The plans in `plans/`: they load, their runs can be built, and what they share is the same run."""

import importlib
from pathlib import Path

import pytest

from saelab.experiments.load import load_plans
from saelab.experiments.plan import check_plan, run_id
from saelab.variants import check_spec

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


def test_the_tables_of_worlds_are_a_plan_each():
    plans = load_plans(FOLDER / "worlds.py")
    assert len(plans) == 19 and {len(plan.runs) for plan in plans} == {40}
    assert plans[0].name == "synth-s1" and plans[0].facts["world"] == "s1" and plans[0].sanity
