"""The page as text: what it must say, and what it must never hold."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from saelab.report import write_report
from saelab.report.read import number, read_results
from unit.report.fixture import HOSTILE, write_folder

LOADERS = {"src", "href", "data", "action", "poster", "srcset"}


class Page(HTMLParser):
    """Visible text by section, and every tag with its attributes."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {"": []}
        self.section, self.silent = "", False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.silent = tag in ("script", "style")
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
            self.words[self.section] = []

    def handle_endtag(self, tag: str) -> None:
        self.silent = False

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words[self.section].append(data)

    def text(self, section: str | None = None) -> str:
        parts = [
            part for key, words in self.words.items() if section in (None, key) for part in words
        ]
        return re.sub(r"\s+", " ", " ".join(parts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_unhealthy_run_is_a_red_line_above_everything(source: str, page: Page) -> None:
    assert (
        "Unhealthy run all_zero-0-0b5e000000aa (all_zero, seed 0): L0 is 0: no latent is ever "
        "active" in page.text("")
    )
    assert source.index('class="alarm" role="alert"') < source.index('<section id="verdicts">')


def test_warning_is_said_once(page: Page) -> None:
    assert page.text("").count("dead share 12 %") == 1
    assert (
        "Warning, run standard-1-3fa9c0de12ab (standard, seed 1): dead share 12 % at the end"
        in page.text("")
    )


def test_latent_card_says_all_that_was_recorded(page: Page) -> None:
    text = page.text("latents")
    assert (
        "standard, seed 0 · fires on a share of 0.0100 · mean when active 2.200 · strongest 7.000 "
        "· chosen for its effect" in text
    )
    assert "document 17, window 0" in text and "16 of 16 recorded latents" in text


def test_undefined_value_gives_its_reason(page: Page) -> None:
    assert "undefined: the reconstruction is zero everywhere" in page.text("summary")
    assert "undefined: no healthy run to average" in page.text("summary")


def test_what_is_absent_is_said(page: Page) -> None:
    assert "not measured" in page.text("summary")  # the zero run has no KL
    assert "Not drawn: all_zero, seed 0 (training curve not measured)" in page.text("training")
    assert "Latents of all_zero-0-0b5e000000aa (all_zero, seed 0): not measured" in page.text(
        "latents"
    )
    assert "runs/all_zero-0-0b5e000000aa/metrics.jsonl is not there" in page.text("facts")


def test_no_placeholder_leaks(page: Page) -> None:
    assert re.search(r"\b(nan|NaN|None|null|inf|undefined(?!:))\b", page.text()) is None
    assert "mathdefault" not in page.text()  # matplotlib's own markup for numbers


def test_nothing_is_loaded(source: str, page: Page) -> None:
    assert "http:" not in source and "https:" not in source and "@import" not in source
    for tag, attributes in page.tags:
        for name in LOADERS & set(attributes):
            assert (attributes[name] or "").startswith(("#", "data:,")), (tag, attributes)
    assert set(re.findall(r"url\((.)", source)) <= {"#"}


def test_hostile_tokens_are_text(source: str, page: Page) -> None:
    assert HOSTILE not in source
    assert HOSTILE in page.text("latents") and HOSTILE in page.text("facts")
    assert not [
        attributes for tag, attributes in page.tags if tag == "img" or "onerror" in attributes
    ]
    assert sum(tag == "script" for tag, _ in page.tags) == 1


def test_means_are_over_seeds(folder: Path, page: Page) -> None:
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    values = [
        row["metrics"]["explained_variance"]["value"] for row in rows if row["variant"] == "topk"
    ]
    assert f"{sum(values) / 2:.4f}" in page.text("summary")
    for value in values:
        assert f"{value:.4f}" in page.text("summary")


def test_verdicts_are_sentences(page: Page) -> None:
    text = page.text("verdicts")
    assert (
        "topk is better than standard in Explained variance (+0.0652, 95 % interval +0.0621 to "
        "+0.0683)." in text
    )
    assert "No difference shown between topk and standard in CE recovered" in text
    assert "batch_topk is worse than standard in MSE" in text
    assert (
        "all_zero and standard cannot be compared in Cosine (unhealthy: all_zero-0-0b5e000000aa)."
        in text
    )
    assert (
        "7 runs on pylm, hook blocks.3.hook_resid_post , at L0 31.9" in text
        and "asked for: 32" in text
    )


def test_dead_share_stands_over_the_densities_of_every_seed(folder: Path, page: Page) -> None:
    own = [run for run in read_results(folder).runs if run.variant == "topk"]
    dead = [f"{100 * run.metrics['dead']['value']:.1f} %" for run in own]
    assert f"topk (dead {', '.join(dead)})" in page.text("core")
    assert "all_zero (dead 100.0 %)" in page.text("core") and HOSTILE in page.text("core")
    assert "solid for the first, dashed for the second seed" in page.text("core")


def test_results_of_an_older_version_lack_their_pictures_and_say_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "demo", seeds=1, contexts=1)
    for run in (folder / "runs").glob("topk-*"):
        core = json.loads((run / "eval" / "core.json").read_text())
        (run / "eval" / "core.json").write_text(
            json.dumps({k: v for k, v in core.items() if k not in ("tables", "figures")})
        )
    page = Page(write_report(folder).read_text())
    assert "The results of topk, seed 0 were written by an older version" in page.text("core")
    assert "saelab eval RUN makes them anew" in page.text("core")
    assert "batch_topk (dead" in page.text("core") and " topk (dead" not in page.text("core")
    assert "topk" in page.text("summary")


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_same_folder_same_bytes(folder: Path, source: str) -> None:
    assert write_report(folder).read_text(encoding="utf-8") == source


def test_ten_runs_stay_below_three_megabytes(tmp_path: Path) -> None:
    path = write_report(write_folder(tmp_path / "big", seeds=3, contexts=12))
    assert path.stat().st_size < 3_000_000


def test_zero_l0_is_unhealthy_even_if_nobody_checked(tmp_path: Path) -> None:
    row = {"variant": "topk", "seed": 0, "l0": 0.0, "metrics": {}, "run": "a"}
    (tmp_path / "summary.json").write_text(json.dumps({"rows": [row]}))
    text = Page(write_report(tmp_path).read_text()).text("")
    assert "Unhealthy run a (topk, seed 0): NothingActive: L0 is 0" in text


@pytest.mark.parametrize(
    "content",
    [None, "{broken\n", "[1, 2]\n", '{"scores": 3, "latents": [4], "problems": 5}\n', "null\n"],
)
def test_damaged_or_missing_files_never_stop_the_page(tmp_path: Path, content: str | None) -> None:
    folder = write_folder(tmp_path / "demo", contexts=1)
    names = ["run.json", "metrics.jsonl", "health.json", "eval/core.json", "eval/latents.json"]
    runs = sorted(
        path for path in (folder / "runs").iterdir() if not path.name.startswith("all_zero")
    )
    for run, name in zip(runs, names, strict=False):  # each run lacks another file
        (run / name).unlink() if content is None else (run / name).write_text(content)
    page = Page(write_report(folder).read_text())
    assert re.search(r"\b(nan|NaN|None)\b", page.text()) is None
    for run, name in zip(runs, names, strict=False):
        if content in (None, "{broken\n"):
            says = "is not there" if content is None else "cannot be read"
            assert f"runs/{run.name}/{name} {says}" in page.text("facts")


def test_folder_without_summary_is_read_from_its_runs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "demo", seeds=1)
    (folder / "summary.json").unlink()
    text = Page(write_report(folder).read_text()).text()
    assert (
        "batch_topk, seed 0" in text
        and "Contrasts: not measured" in text
        and "summary.json is not there" in text
    )


def test_a_run_alone_says_nothing_of_comparisons(tmp_path: Path) -> None:
    """No verdicts, no frontier of one point, no file missing that only a comparison has; what it is
    comes from its own files.
    """
    run = next((write_folder(tmp_path / "demo", seeds=1) / "runs").glob("topk*"))
    meta = {"facts": {"hook": "blocks.3.hook_resid_post", "layer": 3}}
    (run / "sae").mkdir()
    (run / "sae" / "sae.json").write_text(json.dumps({"meta": meta}))
    page = Page(write_report(run).read_text())
    assert [*page.words] == ["", "run", "summary", "training", "core", "facts", "latents"]
    assert "topk , trained on pylm, hook blocks.3.hook_resid_post , at L0" in page.text("run")
    assert "topk, seed 0" in page.text("facts") and "layer 3" in page.text("facts")
    assert "1,000,000" in page.text("facts")
    for words in ("not measured", "not recorded", "is not there", "seeds of", "variants"):
        assert words not in page.text(), words


def test_a_run_that_was_evaluated_and_then_renamed_is_one_run(tmp_path: Path) -> None:
    demo = write_folder(tmp_path / "demo", seeds=1)
    run = next((demo / "runs").glob("topk*")).rename(tmp_path / "mine")
    (row,) = (
        r for r in json.loads((demo / "summary.json").read_text())["rows"] if r["variant"] == "topk"
    )
    (run / "summary.json").write_text(json.dumps({"rows": [row], "contrasts": [], "facts": {}}))
    page = Page(write_report(run).read_text())
    assert page.text("run").count("topk") == 1 and "is not there" not in page.text()
    assert "trained on" in page.text("run") and "training" in page.words


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no results: expected summary\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, True, "3", [1]])
def test_number_refuses_what_is_none(value: object) -> None:
    assert number(value) is None


def test_what_is_kept_stands_against_what_the_model_says(tmp_path):
    """A figure once two variants have both scores; otherwise none, and no empty axes."""
    folder = write_folder(tmp_path / "demo")
    assert "among rows of one L0" not in Page(write_report(folder).read_text()).text("frontier")
    summary = json.loads((folder / "summary.json").read_text())
    for i, row in enumerate(summary["rows"]):
        row["metrics"]["kl_div_with_sae"] = {"value": 0.1 + 0.01 * i}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report(folder).read_text()).text("frontier")
    assert "among rows of one L0" in text and "KL with the SAE" in text
    assert (
        "Over Explained variance, down and to the right is better" in text
        and "nats per token" in text
    )


def test_verdicts_say_whether_they_are_corrected(tmp_path):
    """The fixture's contrasts have no p-value, as in a folder of an older version."""
    write_folder(tmp_path)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "not corrected for the number of contrasts" in page.text()
    path = tmp_path / "summary.json"
    summary = json.loads(path.read_text())
    for contrast in summary["contrasts"]:
        contrast["p"] = 0.01
    path.write_text(json.dumps(summary))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "after Holm's correction" in page.text() and "not corrected" not in page.text()
