"""A plan file: a Python file with a function `plan() -> Plan`."""

import importlib.util
import traceback
from pathlib import Path

from saelab.experiments.plan import Plan


class BadPlanFile(ValueError):
    """A plan file that cannot be used; the message names file, line and what to write."""


def load_plan(path: Path) -> Plan:
    """Run the file and call its `plan()`. Raises `FileNotFoundError` or `BadPlanFile`, naming file
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
        spec.loader.exec_module(module)
        if not callable(getattr(module, "plan", None)):
            raise BadPlanFile(
                f"{path} has no function plan(); write `def plan() -> Plan:` (example: "
                "plans/demo.py)"
            )
        plan = module.plan()
    except (
        NameError,
        ImportError,
        AttributeError,
        TypeError,
        SyntaxError,
        KeyError,
        IndexError,
    ) as error:
        raise BadPlanFile(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    if not isinstance(plan, Plan):
        raise BadPlanFile(f"plan() in {path} returned {type(plan).__name__}; return a saelab Plan")
    return plan


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return f", line {lines[-1]}" if lines else ""
