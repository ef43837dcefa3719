"""The pages of the documentation and the code blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^<!-- (not run|in tests|saved as|part of): (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the HTML comments directly above it say of it.

    `not run: why`: its commands are checked and not carried out. `in tests: A -> B; C -> D`: in the
    test suite it is run in a smaller size. `saved as: FILE`: it is a file that later blocks of the
    page use. `part of: experiment.py`: it is an edit of that script.
    """

    language: str
    code: str
    line: int  # of its first line of code, in the page
    said: dict[str, str]

    @property
    def small(self) -> str:
        """The code as the test suite runs it. Every replacement must find its text."""
        code = self.code
        for change in filter(None, self.said.get("in tests", "").split("; ")):
            before, after = change.split(" -> ")
            assert before in code, f"line {self.line}: {before!r} is not in the block below"
            code = code.replace(before, after)
        return code


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    for match in BLOCK.finditer(text):
        line = text[: match.start(3)].count("\n") + 1
        comments = [COMMENT.match(comment) for comment in match[1].splitlines()]
        assert all(comments), f"line {line}: {match[1]!r} is no comment that the tests know"
        yield Block(match[2], match[3], line, dict(comment.groups() for comment in comments))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, code blocks aside."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text)
