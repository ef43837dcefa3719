"""A plan file: a Python file with a function `plan()` that returns a Plan, or several."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saelab.experiments.plan import Plan

# of a mistake in the file, which the user can mend; others keep their traceback
MISTAKES = (
    NameError,
    ImportError,
    AttributeError,
    TypeError,
    SyntaxError,
    KeyError,
    IndexError,
)


class BadPlanFile(ValueError):
    """A plan file that cannot be used; the message names file, line and what to write."""


def load_plans(path: Path) -> tuple[Plan, ...]:
    """Run the file and call its `plan()`; one plan, or several of different names.

    The file may import others beside it. Raises `FileNotFoundError` or `BadPlanFile`, naming file
    and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no plan file {path}; a plan is a Python file with a function plan() -> Plan"
        )
    spec = importlib.util.spec_from_file_location(f"saelab_plan_{path.stem}", path)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise BadPlanFile(
            f"{path} is no Python file; a plan is a .py file with a function plan() -> Plan"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        with _neighbours(path.resolve().parent):
            spec.loader.exec_module(module)
            if not callable(getattr(module, "plan", None)):
                raise BadPlanFile(
                    f"{path} has no function plan(); write `def plan() -> Plan:` (example: "
                    "plans/demo.py)"
                )
            returned = module.plan()
    except MISTAKES as error:
        raise BadPlanFile(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    plans = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    wrong = [type(plan).__name__ for plan in plans if not isinstance(plan, Plan)]
    if wrong or not plans:
        what = wrong[0] if wrong else "nothing"
        raise BadPlanFile(f"plan() in {path} returned {what}; return a saelab Plan")
    if len({plan.name for plan in plans}) < len(plans):
        raise BadPlanFile(f"plan() in {path} returned two plans of one name; rename one")
    return plans


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Files in `folder` can be imported by name inside, and are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
                del sys.modules[name]


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return f", line {lines[-1]}" if lines else ""
