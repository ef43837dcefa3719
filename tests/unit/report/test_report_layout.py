"""The page reads what the evaluations really write: their own result types, through their own json."""

from dataclasses import asdict
from pathlib import Path

import torch

from saelab.evals.core.examples import RULE, Context, LatentExample
from saelab.evals.core.latents import LatentProfile
from saelab.evals.result import Result
from saelab.report import write_report
from saelab.runs import Run, Source, Spec
from saelab.store import append_line, write_json
from saelab.types import Score
from unit.report.test_report_page import Page


def test_results_of_the_evaluations_are_read_back(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "topk-s0-abc"
    write_json(run / "run.json", {"format": 1, "id": "abc", **Run(Spec("topk"), Source()).config})
    density = torch.tensor([0.25, 0.0, 0.01, 0.0])
    none = torch.full((4,), torch.nan)
    profile = LatentProfile(density, none, none, none, None, None, None, None)
    scores = {"l0": Score(31.5, 31.0, 32.0), "cossim": Score(None, reason="nothing to compare")}
    write_json(
        run / "eval" / "core.json",
        Result(
            scores,
            figures=(profile.density_figure,),
            details={
                "compatible": {"mse": asdict(Score(0.125, 0.1, 0.2))},
                "latents": profile.to_json(),
            },
        ).to_json(),
    )
    context = Context(
        tokens=["def", " f", "\n"], activations=[0.0, 2.5, 1.0], peak=1, doc=7, window=3
    )
    latent = LatentExample(
        index=41,
        chosen_for="selectivity",
        density=0.25,
        mean_activation=1.5,
        max_activation=2.5,
        histogram=[3, 1],
        edges=[0.0, 1.25, 2.5],
        promoted=[(" return", 0.75)],
        suppressed=[("class", -0.5)],
        contexts=[context],
    )
    write_json(run / "eval" / "latents.json", {"rule": RULE, "latents": [asdict(latent)]})
    append_line(
        run / "metrics.jsonl", {"step": 1, "tokens": 2048, "loss": 3.25, "l0": 30.0, "dead": 0.5}
    )

    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "31.50 [31.00, 32.00]" in page.text("summary")
    assert "undefined: nothing to compare" in page.text("summary")
    assert "SAEBench-compatible mse 0.1250 [0.1000, 0.2000]" in page.text("summary")
    assert "topk (dead 50.0 %)" in page.text("core")
    text = page.text("latents")
    for part in (
        "Latent #41",
        "chosen for its selectivity",
        f"in the order they were chosen. {RULE} Logit effect",
        "strongest 2.500",
        "document 7, window 3",
        " return 0.7500",
        "−0.5000",
    ):
        assert part in text, part
    marks = [attributes for tag, attributes in page.tags if tag == "mark"]
    assert [mark["style"] for mark in marks] == ["--a:1.00", "--a:0.40"]
    assert "2,048 3.25" in page.text("facts")
