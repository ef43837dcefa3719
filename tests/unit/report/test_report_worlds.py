"""The page of a synthetic world: what it must say, and what happens to it when files are missing or
damaged.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from saelab.evals import metric_of
from saelab.evals.composition.measure import tree_figure
from saelab.report import write_report
from saelab.report.read import read_results
from saelab.report.worlds import _best
from unit.report.fixture import HOSTILE
from unit.report.test_report_page import LOADERS, Page
from unit.report.world_fixture import F, cosines, put_figures, recovery, write_world

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


def edit(path: Path, key: str, change: dict[str, Any]) -> None:
    """Replace fields of one figure of a result."""
    value = json.loads(path.read_text())
    (figure,) = (figure for figure in value["figures"] if figure["key"] == key)
    figure |= change
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
    framed = {re.sub(r"<.*?>", " ", row).split()[0]: row.count('class="best"') for row in rows}
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
    assert list(page.words) == [
        "",
        "world",
        "truth",
        "composition",
        "verdicts",
        "contrasts",
        "frontier",
        "training",
        "facts",
    ]
    assert "is not there" not in page.text() and "cannot be read" not in page.text()
    assert "35 runs on world s2, at L0 3.000" in page.text("verdicts")
    assert "batch_topk is better than standard in Parent misses" in page.text("verdicts")
    assert "learning rates standard 0.002" in page.text("facts") and "corpus" not in page.text(
        "facts"
    )


def test_pictures(source: str, page: Page) -> None:
    truth, composition = page.text("truth"), page.text("composition")
    assert "Features: parents children distractors" in truth
    assert "Features:" not in composition  # a tree has no groups
    assert "Cosine of every latent and every feature" in truth
    assert "Recovery against frequency" in truth and "Recovered tree" in composition
    for text in (truth, composition):
        assert not any(word in text for word in ("Not drawn", "Left out", "older version"))
        assert "mathdefault" not in text
    for variant in SEVEN:
        assert truth.count(f"{variant}, seed 20") == 1  # cosines; dots are of all seeds
        assert composition.count(f"{variant}, seed 20: ") == 1
    tree = re.search(r"matryoshka, seed 20: (\d+) of 64 edges found", composition)
    frozen = re.search(r"frozen, seed 20: (\d+) of 64 edges found", composition)
    assert tree and frozen and int(tree[1]) > 40 and int(frozen[1]) == 0
    assert source.count("data:image/png;base64") == len(SEVEN)  # one small picture a heat map
    assert "A dot is from one of the healthy seeds." in truth
    assert "The first healthy seed of each variant." in truth
    assert "The first healthy seed of each variant." in composition


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
    truth, composition = page.text("truth"), page.text("composition")
    assert "batch_topk, seed 21" in truth  # the next seed stands in for the cosines
    assert "batch_topk, seed 20:" in composition
    old = content is not None and "scores" in content
    assert ("The results of batch_topk, seed 20 were written by an older" in truth) is old
    assert ("The results of batch_topk, seed 21 were written by an older" in composition) is old
    for path in damaged:
        if content in (None, "{broken\n"):
            says = "is not there" if content is None else "cannot be read"
            assert f"{path.relative_to(folder)} {says}" in page.text("facts")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("cosines", {"values": [[1, 2], [3]]}),
        ("cosines", {"values": [[1, "none"]]}),
        ("cosines", {"values": 7}),
        ("cosines", {"low": None}),
        ("cosines", {"kind": "cloud"}),
        ("cosines", {"frequency": []}),
        ("recovery", {"points": [{"label": "features", "x": [0.1], "y": []}]}),
        ("recovery", {"points": [{"label": "features", "x": [None], "y": [0.5]}]}),
        ("recovery", {"points": [{"label": "features", "x": [float("nan")], "y": [0.5]}]}),
        ("recovery", {"points": 7}),
    ],
)
def test_damaged_figures_are_not_drawn(tmp_path: Path, key: str, change: dict[str, Any]) -> None:
    folder = write_world(tmp_path, ["batch_topk", "matryoshka"], seeds=1)
    first, other = (
        next((folder / "runs").glob(f"{name}-*")) for name in ("batch_topk", "matryoshka")
    )
    edit(first / "eval" / "truth.json", key, change)
    edit(first / "eval" / "composition.json", "recovered_tree", {"roots": 3})
    page = Page(write_report(folder).read_text())
    for name in ("truth", "composition"):
        text = page.text(name)
        assert "Left out of batch_topk, seed 20: a figure is damaged: " in text
        assert len(re.findall(r"Not drawn: batch_topk \([^.]*a figure is damaged: ", text)) == 1
    cosines_too = key != "cosines"  # the undamaged figure of the same result is drawn
    assert ("batch_topk, seed 20" in page.text("truth").split("Cosine of")[1]) is cosines_too
    # nobody has it: what is left out is said all the same
    edit(other / "eval" / "truth.json", key, change)
    edit(other / "eval" / "composition.json", "recovered_tree", {"roots": 3})
    page = Page(write_report(folder).read_text())
    for name in ("truth", "composition"):
        assert "Left out of matryoshka, seed 20: a figure is damaged: " in page.text(name)
    assert "Recovered tree" not in page.text("composition")


@pytest.mark.parametrize("change", [{"figures": 7}, {"figures": {}}, {"tables": [1]}])
def test_what_is_no_list_of_figures_is_said(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_world(tmp_path, ["batch_topk", "matryoshka"], seeds=1)
    path = next((folder / "runs").glob("batch*")) / "eval" / "truth.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    text = Page(write_report(folder).read_text()).text("truth")
    assert f"Left out of batch_topk, seed 20: its {next(iter(change))} are damaged." in text


def test_next_seed_stands_in_for_a_damaged_figure(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=2)
    (first, _) = sorted((folder / "runs").iterdir())
    edit(first / "eval" / "truth.json", "cosines", {"values": 7})
    text = Page(write_report(folder).read_text()).text("truth")
    assert "Left out of batch_topk, seed 20: a figure is damaged" in text
    assert "batch_topk, seed 21" in text and "Not drawn" not in text


def test_older_result_says_what_makes_its_figures(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk", "matryoshka"], seeds=1)
    run = next((folder / "runs").glob("batch_topk-*"))
    for name in ("truth", "composition"):
        path = run / "eval" / f"{name}.json"
        result = json.loads(path.read_text())
        path.write_text(
            json.dumps({k: v for k, v in result.items() if k not in ("tables", "figures")})
        )
    page = Page(write_report(folder).read_text())
    for name in ("truth", "composition"):
        text = page.text(name)
        assert "The results of batch_topk, seed 20 were written by an older version" in text
        assert "saelab eval RUN makes them anew" in text and "Not drawn" not in text
        assert text.count("batch_topk") == 1 and "matryoshka, seed 20" in text


def test_features_without_a_latent_or_a_group(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    put_figures(
        run / "eval" / "truth.json",
        cosines([[0.5] * F], groups={}),
        recovery([0.1] * F, [None] * F, groups={}),
    )
    text = Page(write_report(folder).read_text()).text("truth")
    assert "Features:" not in text and "Not drawn" not in text and "Left out" not in text
    assert text.count("batch_topk, seed 20") == 2  # cosines, dots of one colour


def test_own_tree_is_counted_and_groups_have_their_names(tmp_path: Path) -> None:
    folder = write_world(tmp_path, ["batch_topk"], seeds=1)
    (run,) = (folder / "runs").iterdir()
    groups = {"first": (0, 50), "rest": (50, F)}
    put_figures(
        run / "eval" / "truth.json",
        cosines([[0.5] * F], groups),
        recovery([0.1] * F, [0.5] * F, groups),
    )
    children = [
        {"child": 1, "cosine": 0.9, "found": True, "found_in_tree": True},
        {"child": 2, "cosine": 0.8, "found": False, "found_in_tree": False},
    ]
    put_figures(
        run / "eval" / "composition.json",
        tree_figure({"parents": [{"parent": 0, "cosine": 0.9, "children": children}]}),
    )
    page = Page(write_report(folder).read_text())
    assert "seed 20: 1 of 2 edges found, 1 in its own tree" in page.text("composition")
    assert "Features: first rest" in page.text("truth")


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
    assert "2 seeds, 1 unhealthy" in page.text("world")
    for name in ("truth", "composition"):
        assert "batch_topk, seed 20" not in page.text(name)
        assert "batch_topk, seed 21" in page.text(name)


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
    for name in ("truth", "composition"):
        assert "batch_topk, seed 20 (unhealthy)" in page.text(name)


def test_batch_keys_are_explained_by_their_own() -> None:
    assert (
        metric_of("purity_batch").label == "Purity (batch)"
        and metric_of("purity_batch").better == "higher"
    )
    assert metric_of("new_thing").label == "new thing" and metric_of("l0").label == "L0"
