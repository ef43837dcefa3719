"""Rows of a table: as one writes them (`causal`, `batch_topk+metric:weight=4`,
`price_only=causal:weight=0:price=1`), at another L0, at another learning rate.
"""

import re
from dataclasses import replace

from saelab.runs import Run, Spec
from saelab.variants import check_spec, parse_spec, written


def parse_row(text: str) -> Spec:
    """The spec that `[name=]spec` describes, a spec as `variants.parse_spec` reads it, of default
    size; without a name it is called after its settings and parts.

    Raises `ValueError` as that does, and for a name that cannot name a folder.
    """
    head, *rest = re.split(r"(?=[:+])", text, maxsplit=1)
    name, equals, variant = head.rpartition("=")
    spec = parse_spec("".join((variant, *rest)).strip())
    if not equals:
        name = re.sub(r"[^\w.-]", "_", re.sub("[:+]", "-", written(spec)))
    if not name.strip():
        raise ValueError(
            f"row {text!r} has an empty name; write name=variant, or the variant alone"
        )
    spec = called(spec, name.strip())
    check_spec(spec)
    return spec


def called(spec: Spec, name: str) -> Spec:
    """The spec under this name; the label stays empty where that is its name without one."""
    plain = replace(spec, label="")
    return plain if plain.name == name else replace(spec, label=name)


def at_l0(spec: Spec, l0: float) -> Spec:
    """The row at an L0, which its name says."""
    return replace(spec, l0=l0, label=f"{spec.name}-l0_{l0:g}")


def at_rate(run: Run, lr: float) -> Run:
    """The run at a learning rate, which its name says."""
    spec = replace(run.spec, label=f"{run.spec.name}-lr{lr:g}")
    return replace(run, spec=spec, optim=replace(run.optim, lr=lr))
