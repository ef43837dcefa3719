"""Tables on worlds: what becomes a plan, what is refused, means and sanity, learning rates by
search.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from saelab.experiments.compare.judge import means
from saelab.experiments.compare.summary import sanity
from saelab.experiments.folders import OtherContent, run_folder
from saelab.experiments.listen import Silent
from saelab.experiments.run.execute import execute
from saelab.experiments.tables import tune
from saelab.experiments.tables.standard import OWN, SANITY
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.runs import Run, WorldSource
from saelab.store import CorruptFile, read_json
from saelab.synth.worlds import WORLDS
from saelab.types import Windows
from saelab.variants import settings_of

QUICK = {"steps": 40}


def table(*variants: str, world: str = "s1", seeds=(3, 4), **more) -> WorldTable:
    return WorldTable(world, variants or ("batch_topk", "frozen"), seeds, changes=QUICK, **more)


def run_table(table: WorldTable, out: Path, jobs: int = 1):
    return execute(plan_of(table), out, jobs=jobs)


def source_of(run: Run) -> WorldSource:
    assert isinstance(run.source, WorldSource)
    return run.source


def test_rows_of_a_seed_share_stream_width_and_rate():
    plan = plan_of(WorldTable("s2", ("standard", "batch_topk", "matryoshka"), (20, 21), length=4))
    assert plan.evals == ("truth", "composition") and len(plan.runs) == 6
    for seed in (20, 21):
        rows = [run for run in plan.runs if run.seed == seed]
        assert (
            len(
                {json.dumps(run.config["source"]) + json.dumps(run.config["optim"]) for run in rows}
            )
            == 1
        )
        assert source_of(rows[0]).seed == seed and source_of(rows[0]).steps == 20_000
    assert [dict(run.spec.settings) for run in plan.runs[::2]] == [{}, {}, {"inner": 16}]
    assert {(c.baseline, c.treatment) for c in plan.contrasts} == {
        ("batch_topk", "standard"),
        ("batch_topk", "matryoshka"),
    }
    assert {c.metric for c in plan.contrasts} == set(WORLDS["s2"].headline)


def test_a_world_may_set_numbers_of_a_single_variant():
    rows = {
        run.spec.name: run.spec.settings
        for run in plan_of(table("causal", "end_to_end", "mine=causal:weight=8")).runs
    }
    assert (
        rows["causal"]["weight"] == 4
        and rows["causal"]["refine"] == 0
        and rows["mine"]["weight"] == 8
    )
    assert rows["end_to_end"] == {"anneal": 3, "weight": 4}
    assert set(OWN) <= set(WORLDS) and set(SANITY) <= set(WORLDS)
    for own in OWN.values():
        assert all(set(settings) <= set(settings_of(variant)) for variant, settings in own.items())


def test_several_l0s_make_a_row_each():
    plan = plan_of(table("topk", "standard", l0s=(3, 6)))
    assert {run.spec.name for run in plan.runs} == {
        "topk-l0_3",
        "topk-l0_6",
        "standard-l0_3",
        "standard-l0_6",
    }
    assert {(c.baseline, c.treatment) for c in plan.contrasts} == {
        ("topk-l0_3", "standard-l0_3"),
        ("topk-l0_6", "standard-l0_6"),
    }


def test_what_makes_another_table():
    names = [
        WorldTable("s1", ("topk",), (0,), **more).name
        for more in ({}, {"length": 4}, {"changes": {"k": 6}}, {"changes": {"k": 6.0}})
    ]
    assert names[0] == "synth-s1" and names[2] == names[3] and len(set(names)) == 3
    # rows and seeds are added to it
    assert WorldTable("s1", ("topk", "standard"), (0, 1)).name == "synth-s1"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (WorldTable("s11", ("topk",), (0,)), "no world is called 's11' (did you mean 's1'?)"),
        (WorldTable("s1", ("top_k",), (0,)), "unknown variant 'top_k' (did you mean 'topk'?)"),
        (WorldTable("s1", (), (0,)), "no variants are given"),
        (WorldTable("s1", ("topk",), ()), "no seeds are given; give at least one"),
        (WorldTable("s1", ("topk",), (-1,)), "a seed is -1; it must be 0 or more"),
        (
            WorldTable("s1", ("topk",), (0,), l0s=(64,)),
            "L0 is 64; it must be above 0 and below the width, 64 latents",
        ),
        (WorldTable("s1", ("topk",), (0,), changes={"k": 100}), "L0 is 100"),
        (WorldTable("s1", ("topk",), (0,), changes={"kk": 6}), "no number 'kk'"),
        (WorldTable("s1", ("topk",), (0,), length=0), "length is 0"),
        (WorldTable("s1", ("topk",), (0,), changes={"p": 2}), "p is 2"),
        (WorldTable("s1", ("topk",), (0,), changes={"lr": 0}), "lr is 0"),
    ],
)
def test_what_is_refused_before_anything_trains(tmp_path, wrong, words):
    with pytest.raises(ValueError) as refused:
        run_table(wrong, tmp_path / "out")
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def files(folder: Path) -> dict[str, bytes]:
    kept = [
        p
        for p in folder.rglob("*")
        if p.is_file()
        and p.name in ("truth.json", "temporal_world.json", "sae.safetensors", "metrics.jsonl")
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def test_a_table_is_the_same_for_any_number_of_processes_and_goes_on(tmp_path):
    asked = table(world="s3c")  # measured in a moment
    one = run_table(asked, tmp_path / "one", jobs=1)
    two = run_table(asked, tmp_path / "two", jobs=2)
    assert len(files(tmp_path / "one")) == 4 * 4 and files(tmp_path / "one") == files(
        tmp_path / "two"
    )
    assert one.rows == two.rows and one.means == two.means and one.contrasts == two.contrasts
    changed = next((tmp_path / "one" / "runs").glob("frozen-s3-*")) / "eval" / "temporal_world.json"
    before = changed.read_bytes()
    changed.unlink()
    more = run_table(
        replace(asked, variants=(*asked.variants, "standard_trimmed")), tmp_path / "one"
    )
    assert changed.read_bytes() == before and {row["variant"] for row in more.rows} == {
        "batch_topk",
        "frozen",
        "standard_trimmed",
    }
    assert [row for row in more.rows if row["variant"] != "standard_trimmed"] == list(one.rows)
    record = read_json(tmp_path / "one" / "summary.json")
    assert (
        record["facts"]["world"] == "s3c" and record["facts"]["learning_rates"]["frozen"] == 0.003
    )
    metrics = record["means"][0]["metrics"]
    assert (
        metrics["explained_variance"]["n"] == 2
        and metrics["explained_variance"]["low"] < metrics["explained_variance"]["value"]
    )
    assert (
        "explained_variance_batch" in metrics
        and "explained_variance_batch" not in record["means"][2]["metrics"]
    )
    with pytest.raises(
        OtherContent, match=r"holds the results of 'synth-s3c-\w+', not of 'synth-s2-\w+'"
    ):
        run_table(table(world="s2"), tmp_path / "one")


def test_means_need_every_healthy_seed():
    def row(seed, value, healthy=True):
        metric = {"value": value, "low": None, "high": None} | (
            {} if value is not None else {"reason": "no tree"}
        )
        return {"variant": "a", "seed": seed, "healthy": healthy, "metrics": {"mig": metric}}

    (mean,) = means([row(0, 0.5), row(1, 0.7), row(2, 9.0, healthy=False)])
    assert mean["n"] == 2 and mean["metrics"]["mig"]["value"] == pytest.approx(0.6)
    # Student t, 1 degree of freedom
    assert mean["metrics"]["mig"]["low"] == pytest.approx(0.6 - 12.706 * 0.1, abs=1e-3)
    (mean,) = means([row(0, 0.5), row(1, None)])
    assert mean["metrics"]["mig"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 1,
        "reason": "undefined for seed 1: no tree",
    }


def test_sanity_says_when_a_world_does_not_test_what_it_should():
    expected = SANITY["s1"]

    def found(value):
        rows = [{"variant": "batch_topk", "metrics": {"causal_mcc": {"value": value}}}]
        return {row["metric"]: row["ok"] for row in sanity(expected, rows)}["causal_mcc"]

    assert found(0.02) is True and found(0.9) is False and found(None) is None
    assert {row["ok"] for row in sanity(expected, [])} == {None}
    assert plan_of(WorldTable("s1", ("topk",), (0,))).sanity == expected


def test_rates_are_chosen_on_the_head_world(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "GRID", (1e-5, 1e-2))
    monkeypatch.setattr(tune, "SEEDS", (0,))
    asked = []
    real = tune.plan_of
    monkeypatch.setattr(
        tune,
        "plan_of",
        lambda t: asked.append(t) or real(WorldTable(t.world, t.variants, t.seeds, (), QUICK)),
    )
    chosen = tune.choose_rates(
        WorldTable("s3c_hard", ("batch_topk",), (20,)), tmp_path / "out", Silent(), 1
    )
    assert {t.world for t in asked} == {"s3c"}
    tried = [read_json(path) for path in (tmp_path / "out-rates").glob("runs/*/run.json")]
    assert {(run["spec"]["label"], run["optim"]["lr"]) for run in tried} == {
        ("batch_topk-lr1e-05", 1e-5),
        ("batch_topk-lr0.01", 1e-2),
    }
    record = read_json(tmp_path / "out-rates" / "learning_rates.json")
    best = max(record["means"], key=lambda name: record["means"][name])
    assert record["headline"] == "slow_recall" and best == f"batch_topk-lr{chosen['batch_topk']:g}"
    assert (
        tune.read_rates(
            tmp_path / "out-rates" / "learning_rates.json", WorldTable("s3c", ("batch_topk",), (0,))
        )
        == chosen
    )
    with pytest.raises(ValueError, match="was tuned on s3c; s1 takes its rates from s1"):
        tune.read_rates(
            tmp_path / "out-rates" / "learning_rates.json", WorldTable("s1", ("batch_topk",), (0,))
        )
    with pytest.raises(ValueError, match="has no rate for topk"):
        tune.read_rates(
            tmp_path / "out-rates" / "learning_rates.json", WorldTable("s3c", ("topk",), (0,))
        )
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(CorruptFile, match="holds no learning rates"):
        tune.read_rates(tmp_path / "bad.json", WorldTable("s3c", ("topk",), (0,)))


def test_batch_selection_is_a_reading_of_its_own(tmp_path):
    run_table(table("batch_topk", seeds=(3,)), tmp_path)
    (run,) = plan_of(table("batch_topk", seeds=(3,))).runs
    sae = run_folder(tmp_path, run).load()
    from in_world import as_held_out
    from saelab.evals import EVALS
    from saelab.synth.worlds import build_world

    truth = EVALS["truth"]
    data = truth.prepare(as_held_out(build_world(source_of(run))))
    scores = truth.measure(sae, data).scores
    assert (
        scores["l0_batch"].value == pytest.approx(4.0, abs=1e-3)
        and scores["l0"].value != scores["l0_batch"].value
    )
    # nothing passes it any more, and batch selection does not look at it
    sae.act.threshold.mul_(100)
    again = truth.measure(sae, data).scores
    assert again["l0"].value == 0 and again["l0_batch"].value == scores["l0_batch"].value


def test_a_variant_that_reads_what_the_world_has_not_is_refused(tmp_path, monkeypatch):
    from saelab.experiments.run import preflight
    from saelab.variants import build

    monkeypatch.setattr(
        preflight,
        "build",
        lambda spec, d_in, seed: replace(build(spec, d_in, seed), batches={"main": Windows}),
    )
    with pytest.raises(
        ValueError,
        match=r"batch_topk reads Windows: world 's2' has no windows.*It has Tokens; or leave it out",
    ):
        run_table(table("batch_topk", world="s2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    preflight.preflight(plan_of(table("batch_topk", world="s3")), own_build=False)  # has both


def test_a_variant_that_asks_a_model_is_refused_where_there_is_none(tmp_path):
    from saelab.experiments.run.preflight import preflight

    with pytest.raises(
        ValueError,
        match=r"^causal asks the model behind .* or a world with a model \(s1, s1b, s1d\)",
    ):
        run_table(table("batch_topk", "causal", world="s2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    preflight(plan_of(table("causal", "end_to_end", world="s1d")), own_build=False)


def test_a_world_is_built_once_for_all_its_rows_and_seeds_before_training(monkeypatch):
    """Large worlds take seconds, and every row asks them the same."""
    from saelab.experiments.run import preflight

    built, real = [], preflight.build_world

    def counted(source):
        built.append(source)
        return real(source)

    monkeypatch.setattr(preflight, "build_world", counted)
    plan = plan_of(table("batch_topk", "frozen", "standard", seeds=(0, 1)))
    preflight.preflight(plan, own_build=False)
    assert len(plan.runs) == 6 and len(built) == 1
