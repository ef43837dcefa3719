import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from saelab import console
from saelab.evals import EVALS
from saelab.evals.result import Metric, Result, Table
from saelab.experiments.compare.summary import Summary
from saelab.runs import Run, Source, Spec
from saelab.store import write_json
from saelab.train import Health, Progress, Record, UnhealthyRun

RUNS = [Run(Spec("topk", 64, 8), Source(batch=100), seed=seed) for seed in (0, 1)]


def record(run, step):
    return Record(run, step, step * 100, 1.5, {"mse": 1.5}, 8.0, 0.75, 0.125, 1e-3, None)


def follow(listener):
    listener.begin(RUNS, 0, 20)
    for step in range(1, 21):
        listener.advance(
            Progress(step, (record(0, step), record(1, step)) if step % 10 == 0 else ())
        )
    listener.end()


def test_plain_lines_say_rate_and_state():
    out = io.StringIO()
    follow(console.listener(Console(file=out, width=100)))
    lines = out.getvalue().splitlines()
    assert lines[0] == "training 2 runs for 20 steps of 100 tokens: topk seed 0, topk seed 1"
    assert (
        lines[1].startswith("step 20/20  ") and "tokens/s" in lines[1] and "0:00 left" in lines[1]
    )
    assert lines[2].split() == [
        "topk",
        "seed",
        "0",
        "L0",
        "8.0",
        "EV",
        "0.750",
        "dead",
        "12.5%",
        "loss",
        "1.5",
    ]
    assert len(lines) == 4  # nothing between: it took less than ten seconds


def test_live_table_on_a_terminal():
    out = io.StringIO()
    follow(console.listener(Console(file=out, width=100, force_terminal=True)))
    text = out.getvalue()
    assert (
        "20/20" in text
        and "tokens/s" in text
        and "topk seed 1" in text
        and "0.750" in text
        and "12.5%" in text
    )


def test_summary_tables():
    score = {"value": 0.5, "low": 0.25, "high": 0.75}
    undefined = {"value": None, "low": None, "high": None, "reason": "L0 is 0"}
    metrics = {
        "l0": {"value": 32.0, "low": 31.0, "high": 33.0},
        "explained_variance": score,
        "ce_loss_score": undefined,
    }
    row = {
        "variant": "topk",
        "seed": 0,
        "l0": 32.0,
        "healthy": False,
        "metrics": metrics,
        "run": "topk-s0",
    }
    contrast = {"metric": "explained_variance", "baseline": "topk", "treatment": "gated", **score}
    contrast |= {"n": 2, "p": None, "detectable": 0.031}
    contrast |= {"verdict": "not comparable", "reason": "mean L0 differs"}
    health = {"topk-s0": Health(False, ("NothingActive: none",), ("30% of the latents are dead",))}
    facts = {"seeds": [0, 1, 2], "learning_rates": "derived, not tuned"}
    summary = Summary(Path("out"), (row,), (contrast,), (), facts, health)
    out = io.StringIO()
    console.show_summary(Console(file=out, width=120), summary)
    text = out.getvalue()
    assert (
        "0.500 [0.250, 0.750]" in text and "undefined" in text and "32.00" in text and "NO" in text
    )
    assert "gated against topk" in text and "not comparable (mean L0 differs)" in text
    assert "0.031" in text and "Holm" in text
    assert "Verdicts over 3 seeds, learning rates derived, not tuned" in text
    assert "warning: topk-s0: 30% of the latents are dead" in text
    with pytest.raises(
        UnhealthyRun, match=r"1 of 1 runs is unhealthy. topk-s0: NothingActive: none"
    ):
        summary.check()


def test_every_evaluation_that_was_made_shows_its_headlines(monkeypatch):
    """What the metric says stands there, under the title of its evaluation."""
    for name, evaluation in EVALS.items():
        assert any(metric.headline == 1 for metric in evaluation.metrics), name
    said = [Metric("mine", "My score", "higher", "", 2), Metric("first", "First", "higher", "", 1)]
    more = [Metric("rest", "Rest", "higher", ""), Metric("l0", "Of another", "higher", "", 3)]
    mine = replace(EVALS["core"], metrics=(*said, *more), title="Of my own")
    monkeypatch.setitem(EVALS, "of_mine", mine)
    values = {"l0": 32.0, "explained_variance": 0.5, "mine": 0.25, "first": 0.75, "rest": 0.125}
    metrics = {key: {"value": value, "low": 0, "high": 1} for key, value in values.items()}
    row = {"variant": "topk", "seed": 0, "healthy": True, "metrics": metrics, "run": "topk-s0"}
    out = io.StringIO()
    console.show_summary(Console(file=out, width=120), Summary(Path(), (row,), (), (), {}, {}))
    text = out.getvalue()
    first, second = text.split("Of my own, on held-out data")
    assert "healthy" in first and "0.500 [0.000, 1.000]" in first and "32.00" in first
    words = second.replace("\n", " ").split("  ")
    shown = [word.strip() for word in words if word.strip() and "─" not in word]
    assert shown[1:4] == ["run", "First", "My score"]
    assert shown[4:] == ["topk seed 0", "0.750 [0.000, 1.000]", "0.250 [0.000, 1.000]"]


def test_tables_of_an_evaluation_are_printed_with_what_to_look_for(tmp_path):
    table = Table(
        "Effects",
        ("concept", "decides", "zero"),
        [("a=yes", "[#]", 0.36), ("b", "x", None)],
        "Look.",
    )
    result = Result({}, tables={"any": table})
    write_json(tmp_path / "runs" / "topk-s0" / "eval" / "mine.json", result.to_json())
    summary = Summary(tmp_path, ({"run": "topk-s0"},), (), (), {}, {})
    out = io.StringIO()
    console.show_tables(Console(file=out, width=120), summary, ["mine"])
    (header,) = (line for line in out.getvalue().splitlines() if "decides" in line)
    assert header.split() == ["concept", "decides", "zero"]
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["a=yes", "[#]", "0.360"] in rows and ["b", "x", "-"] in rows and ["Look."] in rows
