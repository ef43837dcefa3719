"""Every code block of the README and the documentation works: it is carried out, in a smaller size
where the page says so, or (where the page says that it is not run, and why) its commands are read
by the command line up to the point where work would begin.
"""

import glob
import re
import shlex
import shutil
from pathlib import Path

import pytest

import saelab
from doc_pages import PAGES, ROOT, Block, blocks, inline_code, name_of
from saelab.cli import main
from saelab.evals import check_evals, standard_evals
from saelab.experiments.evaluate import evaluate as evaluation
from saelab.experiments.plan import check_plan
from saelab.experiments.run import execute as execution
from saelab.experiments.script.bench import script_plan, seeded
from saelab.experiments.script.dry_run import dry_run
from saelab.experiments.tables import tune
from saelab.variants import check_spec, parse_spec

MENTION = r"\.\.\.|\b[A-Z]{3,}|^saelab \w+$|--\w+$"  # of a command that is not one to type
# output folders, of one SAE, that pages take for granted; the tutorial and the README train this
# very one into runs/first, and so find it done
FOLDERS = ("runs/demo", "runs/first", "run_1")


class WorkBegins(BaseException):
    """A command was understood, and would train or evaluate from here on."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """An output folder with one SAE of 64 latents, trained for a moment on the embedded model."""
    source = saelab.Source(tokens=20_000, context=16, buffer=8_192)
    folder = tmp_path_factory.mktemp("tiny") / "out"
    saelab.train_sae(saelab.Run(saelab.Spec("batch_topk", n_latents=64, l0=8), source), folder)
    return folder


@pytest.fixture
def place(tiny, tmp_path, monkeypatch) -> None:
    """The working folder of a page: what it takes for granted is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("plans", "docs"):
        Path(name).symlink_to(ROOT / name)
    for folder in FOLDERS:
        shutil.copytree(tiny, folder)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_work(page, place, monkeypatch):
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{name_of(page)}, line {block.line}"
        if block.language == "python":
            run_python(block, names, where)
        elif block.language == "sh":
            for words in commands(block.small):
                run_command(words, where, monkeypatch, dry="not run" in block.said)
        else:
            assert block.language in ("text", "json"), f"{where}: say the language of the block"
            assert not block.said, f"{where}: only code is run"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_variants_in_the_text_are_understood(page, place, monkeypatch):
    """`saelab ...` and `base:setting=number+part` between single backticks."""
    for words in inline_code(page):
        if words.startswith("saelab ") and not re.search(MENTION, words):
            assert understood(shlex.split(words)[1:], monkeypatch) == 0, words
        elif re.fullmatch(r"\w+(:\w+=[\d.]+)*(\+\w+(:\w+=[\d.]+)*)*", words) and ":" in words:
            assert parse_spec(words), words


# Python -------------------------------------------------------------------------------------------


def run_python(block: Block, names: dict[str, object], where: str) -> None:
    """Carry out a block in the names of its page. One that is part of experiment.py is put at that
    script's end, and what it builds is then trained for two steps.
    """
    assert "not run" not in block.said, f"{where}: Python is always run; say a small size for tests"
    if "saved as" in block.said:
        Path(block.said["saved as"]).write_text(block.small, encoding="utf-8")
    small = re.sub(r"[^\"]*<run>[^\"]*", lambda path: expanded(path[0])[0], block.small)
    code = compile("\n" * (block.line - 1) + small, where, "exec")
    if "part of" not in block.said:
        exec(code, names)
        return
    script = ROOT / block.said["part of"]
    text = script.read_text(encoding="utf-8")
    names = {"__name__": "script", "__file__": str(script)}
    exec(compile(text, script, "exec"), names)
    exec(code, names)
    dry_run(script_plan(names).runs[0], seeded(names["build"], text + block.small))


# Commands -----------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """The commands of a block, in words; what follows a # is a comment."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], where: str, monkeypatch, *, dry: bool) -> None:
    """Carry out a command of saelab, or check it; of other programs, check what they are given."""
    program, *rest = words
    if program == "saelab":
        argv = [name for word in rest for name in expanded(word)]
        status = understood(argv, monkeypatch) if dry else status_of(argv)
        assert status == 0, f"{where}: saelab {shlex.join(argv)}"
        return
    assert dry, f"{where}: say `not run` of {program}, and why"
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {*rest} <= {*targets}, where
    else:
        assert program == "python", f"{where}: unknown program {program}"
        assert (ROOT / rest[0]).is_file(), f"{where}: no file {rest[0]}"


def expanded(word: str) -> list[str]:
    """A word as a shell expands it; `<run>` stands for any name."""
    return sorted(glob.glob(word.replace("<run>", "*"))) or [word]


def understood(argv: list[str], monkeypatch) -> int:
    """The exit code of a command that ends where work would begin, with its plan checked."""

    def execute(plan, out, **settings):
        check_plan(plan)
        for run in plan.runs:
            check_spec(run.spec)
        raise WorkBegins

    def evaluate(folder, *, evals, source, **settings):
        source = source or saelab.Source()
        check_evals(evals or standard_evals(source), source)
        raise WorkBegins

    with monkeypatch.context() as patch:
        for module in (execution, tune):
            patch.setattr(module, "execute", execute)
        patch.setattr(evaluation, "evaluate", evaluate)
        try:
            return status_of(argv)
        except WorkBegins:
            return 0


def status_of(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as end:  # of --help
        return int(end.code or 0)


# The measures themselves ----------------------------------------------------------------------------


def test_a_command_that_is_wrong_is_seen(monkeypatch, capsys):
    assert understood(["train", "batch_topk", "--l0", "32"], monkeypatch) == 0
    for wrong in (
        "train batch_tpk",
        "train topk --tokenz 3",
        "eval runs/x --evals cor",
        "list vars",
    ):
        assert understood(wrong.split(), monkeypatch) == 2, wrong
    capsys.readouterr()


def test_comments_of_blocks():
    text = "<!-- in tests: 9 -> 2; lab b -> lab c -->\n```sh\nsaelab b 9\n```\n\n```text\nx\n```\n"
    first, second = blocks(text)
    assert (first.small, first.line, second.language) == ("saelab c 2\n", 3, "text")
    with pytest.raises(AssertionError, match="no comment that the tests know"):
        [*blocks("<!-- in test: 9 -> 2 -->\n```sh\n9\n```\n")]
    with pytest.raises(AssertionError, match="'7' is not in the block"):
        _ = next(blocks("<!-- in tests: 7 -> 2 -->\n```sh\n9\n```\n")).small
