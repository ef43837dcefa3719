"""The import rule: a file imports from its own folder and from rows strictly above; `import saelab`
stays light.
"""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "saelab"
ROWS = (
    ("types", "figures"),
    ("store", "stats", "threads", "numbers"),
    ("runs", "store", "stats", "threads"),
    ("text",),
    ("lm", "effects", "synth", "sae"),
    ("ground",),
    ("terms",),
    ("variants",),
    ("train", "evals"),
    ("testing",),
    ("experiments", "interop"),
    ("report",),
    ("cli", "cli_list", "cli_synth", "cli_values", "console", "doctor", "__main__"),
)
ROW = {part: row for row, parts in enumerate(ROWS) for part in parts}


def part_of(file: Path) -> str:
    """The folder or single file directly under the package that `file` belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Parts of saelab that a module imports anywhere in it, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}; write the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {name.split(".")[1] for name in names if name.startswith("saelab.")} & set(ROW)


def violations(part: str, tree: ast.AST) -> set[str]:
    """What a file of `part` imports against the rule: a part of its own row other than itself, or
    of a row below.
    """
    own = set(ROWS[-1]) if part in ROWS[-1] else {part}  # the command line is three files
    return {other for other in imported(tree) if other not in own and ROW[other] >= ROW[part]}


def test_every_part_has_a_row():
    parts = {part_of(file) for file in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts <= set(ROW), f"not in the table of rows: {parts - set(ROW)}"


def test_files_import_only_upwards():
    files = [file for file in PACKAGE.rglob("*.py") if part_of(file) != "__init__"]
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in files
        if (found := violations(part_of(file), ast.parse(file.read_text())))
    }
    assert len(files) > 30 and not wrong


def test_the_rule_sees_a_violation():
    tree = ast.parse("def f():\n    from saelab.evals import core\nimport saelab.lm.model\n")
    assert violations("sae", tree) == {"evals", "lm"}
    assert violations("experiments", tree) == set()


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a fresh process has after `code`."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light():
    """No transformers, plotting or statistics package loads with saelab, and nothing but torch may
    take long.
    """
    loaded = loaded_by("import saelab; saelab.Run")
    heavy = {
        "transformers",
        "matplotlib",
        "scipy",
        "sklearn",
        "datasets",
        "pandas",
        "tokenizers",
        "rich",
        "tyro",
    }
    assert not heavy & loaded


def test_training_code_is_light():
    """Nor with what trains on a world, in this process or in workers: they start in a moment."""
    loaded = loaded_by(
        "import saelab.train, saelab.variants, saelab.stats, saelab.evals.table, "
        "saelab.experiments.run.execute"
    )
    assert not {"transformers", "matplotlib", "scipy", "sklearn", "datasets"} & loaded


def test_one_evaluation_is_read_without_the_others():
    """What is imported is what there is to read: 2,500 lines of saelab, of which these are 900."""
    loaded = loaded_by("import saelab.evals.consistency")
    files = [find_spec(name).origin for name in loaded if name.split(".")[0] == "saelab"]
    assert 900 < sum(len(Path(file).read_text().splitlines()) for file in files) < 2_500


# Names -------------------------------------------------------------------------------------------

ABOVE = (
    "synth",
    "ground",
    "train",
    "experiments",
    "report",
    "cli",
    "cli_list",
    "cli_synth",
    "cli_values",
    "console",
    "doctor",
)
# data, not code: which rows a command trains when nobody says which
DATA = ("experiments/demo.py", "experiments/tables/standard.py")
# words that are keys of a table too and mean something else: groups of features, a section's key
OTHER_WORDS = {
    "synth/worlds/s1_causal.py": {"causal"},
    "synth/worlds/s5_spurious.py": {"spurious"},
    "report/page.py": {"frontier"},
}


def strings(tree: ast.AST) -> set[str]:
    """All string literals of a module."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def named(file: str, tree: ast.AST) -> set[str]:
    """Keys of the tables of variants, evaluations and worlds that a file above them spells out."""
    from saelab.evals import EVALS
    from saelab.synth.worlds import WORLDS
    from saelab.variants import BASES, ROWS

    keys = {*BASES, *ROWS, *EVALS} | (set() if file.startswith("synth") else set(WORLDS))
    return strings(tree) & keys - OTHER_WORDS.get(file, set())


def test_nothing_above_its_floor_is_known_by_name():
    wrong = {
        name: keys
        for file in sorted(PACKAGE.rglob("*.py"))
        if part_of(file) in ABOVE
        and (name := file.relative_to(PACKAGE).as_posix()) not in DATA
        and (keys := named(name, ast.parse(file.read_text())))
    }
    assert not wrong


def test_the_rule_sees_a_name():
    assert named("report/page.py", ast.parse("x = {'truth': 1, 'frontier': 's1'}")) == {
        "truth",
        "s1",
    }
