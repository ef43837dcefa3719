"""The plans in `plans/`: they load, their runs can be built, and what they share is the same run."""

from pathlib import Path

import pytest

from saelab.experiments.load import load_plan
from saelab.experiments.plan import check_plan, run_id
from saelab.experiments.tables.reference import RATES, reference_runs
from saelab.variants import check_spec

PLANS = sorted((Path(__file__).parents[3] / "plans").glob("*.py"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_can_be_carried_out(path):
    plan = load_plan(path)
    check_plan(plan)
    for run in plan.runs:
        check_spec(run.spec)
    assert plan.name == path.stem or path.stem == "demo"


def test_the_ablation_takes_over_the_reference_rows():
    reference = {run_id(run): run.spec.name for run in reference_runs()}
    plan = load_plan(PLANS[0].parent / "frontier.py")
    shared = {reference[run_id(run)] for run in plan.runs if run_id(run) in reference}
    assert shared == {"frontier-l0_32", "batch_topk-l0_32", "matryoshka-l0_32"}
    rates = {run.spec.name: run.optim.lr for run in plan.runs if run_id(run) not in reference}
    assert rates.pop("refinement_alone") == RATES["batch_topk"] and {*rates.values()} == {
        RATES["frontier"]
    }
