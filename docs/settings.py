"""Write settings.md beside this file: every setting of every base, part and row, read from the
code.

    make settings
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from saelab.numbers import Setting
from saelab.runs import Spec
from saelab.variants import BASES, PARTS, ROWS, described, resolved, written

PAGE = Path(__file__).with_suffix(".md")
INTRO = """# Every setting

This page lists every number that a variant can be tuned by. It is made from the code by
`make settings`, and the test suite compares the two, so do not edit it by hand.

You write a setting after the name it belongs to, on the command line or in Python. In the
tables, the meaning goes on after the range: `warmup` is a number from 0 to 1 "of training, in which
...".

<!-- not run: it trains for minutes -->
```sh
saelab train batch_topk:refine=.15+metric:weight=4
```

```python
from saelab import Spec

Spec("batch_topk", settings={"refine": 0.15}, parts={"metric": {"weight": 4}})
```

`saelab list settings batch_topk` prints the settings of one name. The number of latents and the
L0 are no settings but flags of their own (`--n_latents`, `--l0`), for every variant has them.
Synthetic worlds have other defaults for a few settings, and the `run.json` of every run says what
it was trained with."""


def page() -> str:
    """The whole page, as text."""
    return "\n\n".join(_pieces()) + "\n"


def _pieces() -> Iterator[str]:
    yield INTRO
    yield "## Bases"
    yield "A base is an SAE with its loss. [Baselines](variants/baselines.md) explains them."
    for name in BASES:
        yield from _entry(name)
    yield "## Parts"
    yield "A part adds an idea to any base. [Causal](variants/causal.md) explains those there are."
    for name, part in PARTS.items():
        yield from _entry(name, f"{_sentence(part.meaning)}")
    yield "## Rows"
    yield "A row is a name for a base with parts, and has names of its own for their settings."
    for name, row in ROWS.items():
        said = f"{_sentence(row.meaning)} It stands for `{written(resolved(Spec(name)))}`."
        yield from _entry(name, said)


def _entry(name: str, said: str = "") -> Iterator[str]:
    yield f"### {name}"
    if said:
        yield said
    settings = described(name)
    yield _table(settings) if settings else "It has no settings."


def _sentence(meaning: str) -> str:
    return f"{meaning[0].upper()}{meaning[1:]}."


def _table(settings: Mapping[str, Setting]) -> str:
    rows = [
        f"| `{name}` | {setting.default:g} | {setting.kind.range} | {setting.meaning} |"
        for name, setting in settings.items()
    ]
    return "\n".join(["| setting | default | allowed | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
