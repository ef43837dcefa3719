"""The page of a synthetic world: what it must say, and what happens to it when files are missing or
damaged.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from saelab.evals import metric_of
from saelab.report import write_report
from saelab.report.read import read_results
from saelab.report.worlds import _best
from unit.report.fixture import HOSTILE
from unit.report.test_report_page import LOADERS, Page
from unit.report.world_fixture import write_world

SEVEN = (
    "standard",
    "standard_trimmed",
    "batch_topk",
    "jump_relu",
    "matryoshka",
    "frontier",
    "frozen",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("report") / "s2", SEVEN, seeds=5)


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def edit(path: Path, change: dict[str, Any]) -> None:
    """Replace keys of a result's `details`."""
    value = json.loads(path.read_text())
    value["details"] |= change
    path.write_text(json.dumps(value))


def test_what_it_tests_and_whether_it_does(page: Page) -> None:
    text = page.text("world")
    assert "World s2 : Does an SAE keep a parent's latent active beside its children?" in text
    assert "holds Parent misses of batch_topk should be 0.12 to 0.35, measured: 0.2100" in text
    assert "Otherwise: there is no absorption to cure." in text
    assert "not measured MCC of gated should be at least 0.5, measured: not measured" in text
    assert "does not test what it should" not in page.text()


def test_failed_sanity_is_a_red_line_above_everything(tmp_path: Path) -> None:
    source = write_report(
        write_world(tmp_path, ["batch_topk"], seeds=1, sanity_value=0.04)
    ).read_text()
    page = Page(source)
    assert (
        "The world does not test what it should : there is no absorption to cure (Parent misses "
        "of batch_topk"
        " should be 0.12 to 0.35, measured: 0.0400 )." in page.text("")
    )
    assert source.index('class="alarm" role="alert"') < source.index('<section id="world">')
    assert "fails Parent misses of batch_topk" in page.text("world")


def test_means_have_intervals_and_the_frame_what_they_support(
    folder: Path, source: str, page: Page
) -> None:
    means = json.loads((folder / "summary.json").read_text())["means"]
    for row in means:
        mean = row["metrics"]["parent_fn"]
        assert f"{mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]" in page.text("world")
    rows = re.findall(
        r'<tr><th scope="row">.*?</tr>', source.split('id="means-table"')[1].split("</table>")[0]
    )
    framed = {re.sub(r"<.*?>", " ", row).split()[0]: row.count("class=best") for row in rows}
    # not L0: it has no better side
    assert framed == {variant: 3 * (variant == "matryoshka") for variant in SEVEN}


def test_overlapping_intervals_frame_nothing() -> None:
    def means(low: float) -> dict[str, Any]:
        return {
            "a": {"mcc": {"value": 0.5, "low": 0.4, "high": 0.6}},
            "b": {"mcc": {"value": 0.7, "low": low, "high": 0.8}},
        }

    assert (
        _best(means(0.61), "mcc", "higher") == "b" and _best(means(0.59), "mcc", "higher") is None
    )
    lower = {name: {"leak_linear": entry["mcc"]} for name, entry in means(0.61).items()}
    assert _best(lower, "leak_linear", "lower") == "a"
    assert (
        _best(
            {**means(0.61), "c": {"mcc": {"value": 0.1, "low": None, "high": None}}},
            "mcc",
            "higher",
        )
        is None
    )
    assert (
        _best({"a": means(0.61)["a"]}, "mcc", "higher") is None
        and _best(means(0.61), "l0", "neither") is None
    )


def test_every_metric_of_every_seed_is_there(folder: Path, page: Page) -> None:
    text = page.text("world")
    for row in json.loads((folder / "summary.json").read_text())["rows"]:
        for key in ("mcc", "parent_fn_batch"):
            assert f"{row['seed']}: {row['metrics'][key]['value']:.4f}" in text
    # not again for every seed
    assert text.count("undefined: seed 20: this dictionary has no tree") == len(SEVEN)
    assert text.count("this dictionary has no tree") == len(SEVEN)
    assert (
        "The same with codes under batch selection" in text
        and text.count("Parent misses (batch)") == 1
    )
    assert metric_of("coverage_f1").meaning in text


def test_sections_of_a_language_model_are_not_there(page: Page) -> None:
    assert {"world", "features", "verdicts", "contrasts", "frontier", "training", "facts"} == set(
        page.words
    ) - {""}
    assert "is not there" not in page.text() and "cannot be read" not in page.text()
    assert "35 runs on world s2, at L0 3.000" in page.text("verdicts")
    assert "batch_topk is better than standard in Parent misses" in page.text("verdicts")
    assert "learning rates standard 0.002" in page.text("facts") and "corpus" not in page.text(
        "facts"
    )


def test_pictures(source: str, page: Page) -> None:
    text = page.text("features")
    assert "Features: parents children distractors" in text and "Not drawn" not in text
    for variant in SEVEN:
        assert text.count(f"{variant}, seed 20") == 2  # cosines, tree
    tree = re.search(r"matryoshka, seed 20: (\d+) of 64 edges found", text)
    frozen = re.search(r"frozen, seed 20: (\d+) of 64 edges found", text)
    assert tree and frozen and int(tree[1]) > 40 and int(frozen[1]) == 0
    assert source.count("data:image/png;base64") == len(SEVEN)  # one small picture a heat map
    assert "mathdefault" not in text


def test_nothing_is_loaded_and_hostile_text_is_text(source: str, page: Page) -> None:
    assert HOSTILE not in source and HOSTILE in page.text("world")
    for tag, attributes in page.tags:
        for name in LOADERS & set(attributes):
            assert (attributes[name] or "").startswith(("#", "data:")), (tag, name)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert re.search(r"\b(nan|NaN|None|null|inf|undefined(?!:))\b", page.text()) is None


def test_page_is_small(source: str) -> None:
    assert len(source.encode()) < 3_000_000


def test_same_folder_same_bytes(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


@pytest.mark.parametrize(
    "content", [None, "{broken\n", '{"scores": 3, "details": [4]}\n', "null\n"]
)
def test_damaged_or_missing_files_never_stop_the_page(tmp_path: Path, content: str | None) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=2)
    (first, second) = sorted((folder / "runs").iterdir())
    damaged = [first / "eval" / "truth.json", second / "eval" / "composition.json"]
    for path in damaged:
        path.unlink() if content is None else path.write_text(content)
    page = Page(write_report(folder).read_text())
    assert "batch_topk, seed 21" in page.text("features")  # the next seed stands in for the cosines
    assert "batch_topk, seed 20:" in page.text("features")
    for path in damaged:
        if content in (None, "{broken\n"):
            says = "is not there" if content is None else "cannot be read"
            assert f"{path.relative_to(folder)} {says}" in page.text("facts")


@pytest.mark.parametrize(
    "change",
    [
        {"cosine": [[1, 2], [3]], "frequency": [0.1]},
        {"cosine": [[1, None]], "frequency": None},
        {"cosine": [], "matched": "none"},
        {"cosine": [[]], "matched": []},
        {"cosine": 7, "matched": 7},
    ],
)
def test_damaged_details_are_not_drawn(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    edit(run / "eval" / "truth.json", change)
    edit(run / "eval" / "composition.json", {"parents": 3})
    text = Page(write_report(folder).read_text()).text("features")
    for what in (
        "the cosines of latents and features",
        "the features' frequencies and matches",
        "a recovered tree",
    ):
        assert f"batch_topk (no run has {what})" in text, what


def test_features_without_a_latent_or_a_group(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    edit(
        run / "eval" / "truth.json",
        {"groups": {"bad": [96, 99], "worse": "x"}, "matched": [None] * 96},
    )
    text = Page(write_report(folder).read_text()).text("features")
    assert "Features: features" in text and "Not drawn" not in text


def test_own_tree_is_counted_and_groups_end_with_the_picture(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    edit(run / "eval" / "truth.json", {"groups": {"first": [0, 50], "rest": [50, 500]}})
    children = [
        {"child": 1, "cosine": 0.9, "found": True, "found_in_tree": True},
        {"child": 2, "cosine": 0.8, "found": False},
    ]
    edit(
        run / "eval" / "composition.json",
        {"parents": [{"parent": 0, "cosine": 0.9, "children": children}]},
    )
    text = Page(write_report(folder).read_text()).text("features")
    assert "1 of 2 edges found, 1 in its own tree" in text and "Features: first rest" in text


def test_without_summary_the_runs_still_tell_a_world(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (folder / "summary.json").unlink()
    results = read_results(folder)
    assert (
        results.in_world
        and "parent_fn" in results.runs[0].metrics
        and results.notes == ["summary.json is not there"]
    )
    text = Page(write_report(folder).read_text()).text("world")
    assert (
        "a world whose name was not measured" in text and "Means over seeds: not measured" in text
    )


def test_unhealthy_seed_is_marked_and_not_drawn_first(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=2)
    (first, _) = sorted((folder / "runs").iterdir())
    (first / "health.json").write_text(
        json.dumps({"healthy": False, "problems": ["loss grew"], "warnings": []})
    )
    page = Page(write_report(folder).read_text())
    assert "2 seeds, 1 unhealthy" in page.text("world") and "batch_topk, seed 20" not in page.text(
        "features"
    )


def test_variant_without_a_healthy_seed_has_no_mean(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    (run / "health.json").write_text(
        json.dumps({"healthy": False, "problems": ["loss grew"], "warnings": []})
    )
    summary = json.loads((folder / "summary.json").read_text())
    summary["means"] = [{"variant": "batch_topk", "n": 0, "metrics": {}}]
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(folder).read_text())
    assert "1 seed, 1 unhealthy undefined: no healthy run to average" in page.text("world")
    assert "batch_topk, seed 20 (unhealthy)" in page.text("features")


def test_batch_keys_are_explained_by_their_own() -> None:
    assert (
        metric_of("purity_batch").label == "Purity (batch)"
        and metric_of("purity_batch").better == "higher"
    )
    assert metric_of("new_thing").label == "new thing" and metric_of("l0").label == "L0"
