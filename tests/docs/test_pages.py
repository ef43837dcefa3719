"""What the pages name exists: links, files, modules; and what is made from the code is what the
code says.
"""

import importlib
import re
import runpy
import urllib.parse

import pytest

from doc_pages import PAGES, ROOT, inline_code, name_of

# The log says what files were called when it was written.
LASTING = [page for page in PAGES if page.name != "lab-log.md"]
FOLDERS = ("src", "docs", "plans", "tests", "benchmarks", "examples", "findings")
# what commands write, and what stands for a file of the reader's
WRITTEN = ("own.py", "my_plan.py", "levels.py", "PLAN.py")


def missing_paths(texts: list[str]) -> list[str]:
    """Those that look like a file or folder of this repository, and are none."""
    inside = {folder.name for folder in (ROOT / "src" / "saelab").iterdir() if folder.is_dir()}
    missing = []
    for text in texts:
        is_file = re.fullmatch(r"[\w./-]+\.(py|md|sh|toml)", text) and text not in WRITTEN
        first, slash, _ = text.partition("/")
        is_place = re.fullmatch(r"[\w./-]+", text) and slash and first in (*FOLDERS, *inside)
        if (is_file or is_place) and not any(
            (home / text).exists() for home in (ROOT, ROOT / "src" / "saelab", ROOT / "docs")
        ):
            missing.append(text)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    ):
        if urllib.parse.urlparse(target).scheme:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The names that headings can be linked by."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LASTING, ids=name_of)
def test_files_and_modules_exist(page):
    texts = inline_code(page)
    assert not missing_paths(texts)
    for text in texts:
        module = re.match(r"saelab(\.\w+)+", text)
        if module and not text.startswith("saelab.egg"):
            resolve(module[0])


def resolve(name: str) -> object:
    """A module of saelab, or something in one. Raises where there is no such thing."""
    value, *rest = importlib.import_module("saelab"), *name.split(".")[1:]
    for i, part in enumerate(rest):
        path = ".".join(["saelab", *rest[: i + 1]])
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
    return value


def test_settings_page_is_what_the_code_says():
    made = runpy.run_path(str(ROOT / "docs" / "settings.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run `make settings`"


def test_every_page_can_be_reached_from_the_index():
    found, new = set(), {ROOT / "docs" / "index.md"}
    while new:
        page = new.pop()
        found.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        new |= {(page.parent / link).resolve() for link in links} - found
    assert not {*PAGES} - found


def test_stale_names_are_seen():
    stale = ["lm/labels_python.py", "evals/truth.py", "docs/none.md", "no_such.py"]
    fine = ["text/labels/python.py", "plans/demo.py", "runs/demo", "a/b", "experiment.py", "own.md"]
    assert missing_paths([*stale, *fine]) == stale
    assert anchors("# A `b`: c\n\n## Where nothing wins\n") == {"a-b-c", "where-nothing-wins"}
    with pytest.raises(ImportError):
        resolve("saelab.lm.labels_python")
