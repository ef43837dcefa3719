import json
from dataclasses import replace
from pathlib import Path

import pytest

from saelab.experiments import demo
from saelab.experiments.folders import OtherContent, RunFolder, claim, run_folder, stored_run
from saelab.experiments.load import load_plans
from saelab.experiments.plan import (
    Contrast,
    Plan,
    check_plan,
    run_from_config,
    run_id,
    run_name,
)
from saelab.runs import Optim, Run, Source, Spec
from saelab.store import CorruptFile, append_line, read_lines
from saelab.variants import check_spec

RUN = Run(
    Spec("topk", 256, 8, {"aux": 0.0}), Source(tokens=10_000, batch=100), Optim(lr=2e-3), seed=3
)


def single(run: Run) -> Plan:
    return Plan(run_name(run), (run,))


def test_identity_is_content():
    same = Run(
        Spec("topk", 256, 8.0, {"aux": 0}),
        Source(tokens=10_000, batch=100),
        Optim(lr=0.002),
        seed=3,
    )
    assert run_from_config(json.loads(json.dumps(RUN.config))) == RUN
    assert run_name(RUN).startswith("topk-s3-") and run_name(RUN).endswith(run_id(RUN)[:8])
    assert run_id(replace(RUN, optim=Optim(lr=1e-3))) != run_id(RUN)
    assert run_id(replace(RUN, seed=4)) != run_id(RUN)
    assert run_id(same) == run_id(RUN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim": Optim(lr=0)}, "lr is 0; it must be above 0"),
        ({"optim": Optim(lr=float("nan"))}, "lr is nan"),
        ({"optim": Optim(warmup=-1)}, "warmup is -1"),
        ({"optim": Optim(decay=1.5)}, "decay is 1.5"),
        ({"optim": Optim(beta2=1.0)}, "beta1 and beta2"),
        ({"optim": Optim(clip=0)}, "clip is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_runs_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        check_plan(Plan("p", (replace(RUN, **change),)))


def test_bad_plans_are_refused():
    with pytest.raises(ValueError, match="has no runs"):
        check_plan(Plan("empty", ()))
    with pytest.raises(ValueError, match="twice"):
        check_plan(Plan("p", (RUN, RUN)))
    with pytest.raises(ValueError, match="did you mean 'topk'"):
        check_plan(Plan("p", (RUN,), (Contrast("l0", "topk", "top_k"),)))
    sweep = (RUN, replace(RUN, spec=replace(RUN.spec, l0=16)))
    with pytest.raises(ValueError, match="several runs with one seed"):
        check_plan(Plan("p", sweep, (Contrast("l0", "topk", "topk"),)))
    check_plan(Plan("p", sweep))
    ablated = replace(RUN, spec=replace(RUN.spec, settings={"aux": 0.5}, label="much_aux"))
    check_plan(Plan("p", (RUN, ablated), (Contrast("l0", "topk", "much_aux"),)))
    assert run_name(ablated).startswith("much_aux-s3-")
    assert run_id(ablated) == run_id(replace(ablated, spec=replace(ablated.spec, label="")))
    with pytest.raises(ValueError, match="names folders"):
        check_spec(replace(RUN.spec, label="a/b"))


def test_a_folder_belongs_to_one_plan(tmp_path):
    plan = single(RUN)
    claim(plan, tmp_path / "out")
    claim(plan, tmp_path / "out")  # the same one goes on
    other = single(replace(RUN, seed=4))
    # the first one has left nothing there: it failed before it trained
    claim(other, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == [
        run_name(other.runs[0])
    ]
    claim(plan, tmp_path / "out")
    run_folder(tmp_path / "out", RUN).metrics.write_text("")
    with pytest.raises(OtherContent, match=f"{plan.name}.*{other.name}"):
        claim(other, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OtherContent, match="a folder of its own"):
        claim(plan, tmp_path / "mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        claim(plan, tmp_path / "mine" / "thesis.tex")


def test_a_grown_plan_goes_on(tmp_path):
    claim(Plan("grows", (RUN,)), tmp_path / "out")
    claim(Plan("grows", (RUN, replace(RUN, seed=4))), tmp_path / "out")
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_damaged_files_are_named(tmp_path):
    claim(single(RUN), tmp_path / "out")
    path = run_folder(tmp_path / "out", RUN).path / "run.json"
    assert stored_run(path.parent) == RUN
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 5', 1))
    with pytest.raises(CorruptFile, match=r"run\.json is damaged or was edited"):
        claim(single(RUN), tmp_path / "out")
    path.write_text('{"id": ')
    with pytest.raises(CorruptFile, match=r"run\.json is not valid json"):
        claim(single(RUN), tmp_path / "out")
    (tmp_path / "out" / "plan.json").write_text("[]")
    with pytest.raises(CorruptFile, match=r"plan\.json is no plan"):
        claim(single(RUN), tmp_path / "out")


def test_logs_are_cut_back_to_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path, RUN)
    for step in (10, 20, 30):
        append_line(folder.metrics, {"step": step, "loss": 1.5})
    with open(folder.metrics, "a") as file:
        file.write('{"step": 4')  # a killed writer
    folder.truncate_metrics(20)
    assert [line["step"] for line in read_lines(folder.metrics)] == [10, 20]
    assert folder.metrics.read_text().endswith("\n")
    folder.metrics.write_text("no json\n")
    with pytest.raises(CorruptFile, match=r"metrics\.jsonl is damaged"):
        folder.truncate_metrics(20)


def test_the_demo_is_a_plan_that_anyone_can_run():
    plan = demo.plan()
    check_plan(plan)
    for run in plan.runs:
        check_spec(run.spec)
    assert load_plans(Path(__file__).parents[3] / "plans" / "demo.py") == (plan,)
    variants = {run.spec.variant for run in plan.runs}
    assert len(variants) == 4 and {run.seed for run in plan.runs} == {0, 1, 2}
    assert len(plan.runs) == 12 and len({(run.source, run.spec.l0) for run in plan.runs}) == 1
    assert {contrast.metric for contrast in plan.contrasts} == {
        "explained_variance",
        "ce_loss_score",
    }
    judged = {name for c in plan.contrasts for name in (c.baseline, c.treatment)}
    assert judged == variants and len(plan.contrasts) == 6


def test_a_field_added_later_leaves_earlier_identities():
    """The id of a run as written by the first version, whose `Optim` had no `dead_after`."""
    run = Run(Spec("topk", 64, 8.0), Source(tokens=1000, batch=100))
    assert run_id(run) == run_id(replace(run, optim=Optim(dead_after=None)))
    assert run_id(run) != run_id(replace(run, optim=Optim(dead_after=50_000)))
    config = run.config
    del config["optim"]["dead_after"]
    assert run_id(run_from_config(config)) == run_id(run)
