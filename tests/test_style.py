"""Bounds on the tail: the longest file, the longest function, the widest configuration, and a few
things never done.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "saelab"
FILES = sorted(
    [*PACKAGE.rglob("*.py"), *(ROOT / "plans").rglob("*.py"), *ROOT.glob("experiment.py")]
)
MAX_FILE, MAX_FUNCTION, MAX_FIELDS, MAX_PARAMETERS = 400, 60, 12, 7
MAX_FILES = 9  # of a folder
MAY_PRINT = ("src/saelab/cli", "experiment.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def nodes(*kinds: type) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in every file, with `file:line name`."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield (
                    f"{name_of(file)}:{getattr(node, 'lineno', 0)} {getattr(node, 'name', '')}".strip(),
                    node,
                )


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def positional(node: Function) -> list[str]:
    names = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args]]
    return names[1:] if names[:1] in (["self"], ["cls"], ["ctx"]) else names


def boolean_defaults(node: Function) -> list[str]:
    """Parameters of a function whose default is True or False."""
    args, defaults = [*node.args.posonlyargs, *node.args.args], node.args.defaults
    pairs = [*zip(args[len(args) - len(defaults) :], defaults, strict=True)]
    pairs += [
        pair
        for pair in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if pair[1] is not None
    ]
    return [
        arg.arg
        for arg, default in pairs
        if isinstance(default, ast.Constant) and isinstance(default.value, bool)
    ]


def test_files_are_short():
    long = {
        name_of(file): n
        for file in FILES
        if (n := len(file.read_text(encoding="utf-8").splitlines())) > MAX_FILE
    }
    assert not long


def test_functions_are_short():
    long = {
        where: n
        for where, node in nodes(*Function.__args__)
        if (n := node.end_lineno - node.lineno + 1) > MAX_FUNCTION
    }
    assert not long


def test_dataclasses_are_narrow():
    wide = {
        where: n
        for where, node in nodes(ast.ClassDef)
        if is_dataclass(node)
        and (n := sum(isinstance(item, ast.AnnAssign) for item in node.body)) > MAX_FIELDS
    }
    assert not wide


def test_functions_have_few_positional_parameters():
    many = {
        where: n
        for where, node in nodes(*Function.__args__)
        if (n := len(positional(node))) > MAX_PARAMETERS
    }
    assert not many


def test_public_functions_have_no_boolean_default():
    found = {
        where: names
        for where, node in nodes(*Function.__args__)
        if not node.name.startswith("_") and (names := boolean_defaults(node))
    }
    assert not found


def test_folders_are_small():
    """At most nine files side by side; the package's own front row is the list of its floors."""
    folders = {folder for folder in PACKAGE.rglob("*") if folder.is_dir()}
    sizes = {
        str(folder.relative_to(ROOT)): n
        for folder in folders
        if (n := sum(file.name != "__init__.py" for file in folder.glob("*.py"))) > MAX_FILES
    }
    assert folders and not sizes


def test_no_file_is_called_after_another():
    """A file is cut by its idea: `x_parts`, `x_result` or `x_numbers` says that there was none."""
    ends = ("_parts", "_result", "_numbers", "_utils")
    assert not [name_of(file) for file in FILES if file.stem.endswith(ends)]


def test_only_the_command_line_and_the_report_print():
    found = [
        where
        for where, node in nodes(ast.Call)
        if isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and not where.startswith(MAY_PRINT)
    ]
    assert not found


def test_nothing_is_swallowed():
    """No bare except, no except Exception, no except that only passes."""
    found = []
    for where, node in nodes(ast.ExceptHandler):
        broad = node.type is None or ast.unparse(node.type) == "Exception"
        if broad or all(isinstance(item, ast.Pass) for item in node.body):
            found.append(where)
    assert not found


def test_only_safe_formats():
    """Nothing unpickles: no pickle, no torch.load, no joblib but its count of cores."""
    found = [
        where
        for where, node in nodes(ast.Attribute)
        if ast.unparse(node) in ("torch.load", "torch.save")
    ]
    for where, node in nodes(ast.Import, ast.ImportFrom):
        modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        unsafe = {module.split(".")[0] for module in modules} & {
            "pickle",
            "joblib",
            "dill",
            "cloudpickle",
        }
        if unsafe and ast.unparse(node) != "from joblib import cpu_count":
            found.append(where)
    assert not found


def test_the_measures_can_fail():
    source = "def f(self, a, b=True, *, c=False): print(1)\n"
    function = ast.parse(source).body[0]
    assert positional(function) == ["a", "b"] and boolean_defaults(function) == ["b", "c"]
