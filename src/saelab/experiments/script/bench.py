"""The machinery behind `python experiment.py --out_dir=run_1`: a script's constants and `build` ->
final_info.json.

The script is the experiment: its text, with the version of saelab, is the identity of a run. A
finished folder of the same text is left alone, an interrupted one goes on, a failed one is moved to
`<out_dir>.failed-N` and started anew. What another text made is never touched, unless `--replace`
is given: then it is kept as `<out_dir>.before-N`.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from saelab.evals import check_evals
from saelab.experiments.failure import exit_code, explain, explained, raised_here
from saelab.experiments.folders import OtherContent
from saelab.experiments.listen import Listener
from saelab.experiments.plan import Plan, check_plan
from saelab.experiments.run.execute import execute
from saelab.experiments.run.lock import check_free
from saelab.experiments.run.preflight import sources
from saelab.experiments.script.dry_run import dry_run
from saelab.experiments.script.final_info import final_info, write_notes
from saelab.experiments.script.start import started
from saelab.ground.ground import kind_of
from saelab.numbers import nearest_name
from saelab.runs import Optim, Run, Source, Spec
from saelab.store import content_id, read_json, write_json, write_text
from saelab.terms.base import Variant
from saelab.terms.own import variant_of
from saelab.train.loop import Build
from saelab.types import Hook
from saelab.variants import check_sizes

NAMES = (  # that a script must define
    "model_name",
    "corpus",
    "layers",
    "dict_size",
    "num_tokens",
    "context_length",
    "learning_rate",
    "l0",
    "sparsity_penalty",
    "warmup_steps",
    "buffer_size",
    "sae_batch_size",
    "llm_batch_size",
    "eval_types",
    "seeds",
    "build",
)
ALL_NAMED = 40  # attributes of a thing that are all named
VARIANT = "experiment"  # the name of what the script builds


def run_script(script: Mapping[str, Any], listener: Listener) -> Path:
    """Carry out the experiment of a script, given its `globals()`, and return the folder of the
    results.

    Writes `final_info.json`, `summary.json`, `runs/<run>/sae/`, and a section of `notes.txt` beside
    the folder. Exits with 0 when the folder holds the finished run of this very script. Whatever
    fails is explained on standard error, last.
    """
    asked = _arguments()
    out = asked.out_dir
    path = Path(script["__file__"]).resolve()
    text = path.read_text(encoding="utf-8")
    identity = content_id([text, version("saelab")])
    with Explained(path, out, identity):
        started()
        plan = script_plan(script, identity)
        build = seeded(script["build"], text)
        if _finished(out, identity):
            listener.note(f"{out} holds this very experiment, finished; it is left as it is")
            raise SystemExit(0)
        for source in sources(plan.runs):
            kind_of(source).check(source)
            check_evals(plan.evals, source)
            for warning in dry_run(next(r for r in plan.runs if r.source == source), build):
                listener.note(f"warning: {warning}")
        check_free(out)  # before anything of what is there is moved
        _clear(out, identity, replace=asked.replace)
        write_json(out / "experiment.json", {"id": identity, "finished": False})
        write_text(out / "experiment.py", text)
        summary = execute(plan, out, listener=listener, build=build)
        for name, health in summary.health.items():
            for warning in health.warnings:
                listener.note(f"warning: {name}: {warning}")
        summary.check()
        info = final_info(plan, out)
        write_json(out / "final_info.json", info)
        write_notes(out, info)
        write_json(out / "experiment.json", {"id": identity, "finished": True})
    return out


def script_plan(script: Mapping[str, Any], code: str = "") -> Plan:
    """The runs that a script's constants ask for: one per layer and seed. `code` is the identity of
    the script that builds them. Raises `ValueError` for what makes no sense.
    """
    for name in NAMES:
        if name not in script:
            given = [key for key in script if not key.startswith("_")]
            near = get_close_matches(name, given, n=1, cutoff=0.6)
            hint = f"; is it called {near[0]!r} now? Put it back" if near else ""
            raise ValueError(f"the script defines no {name}{hint}")
    c, penalty = dict(script), script["sparsity_penalty"]
    if (c["l0"] is None) == (penalty is None):
        raise ValueError(
            f"l0 is {c['l0']} and sparsity_penalty is {penalty}; give one of them and set the "
            "other to None"
        )
    fixed = {} if penalty is None else {"coefficient": float(penalty)}
    spec = Spec(VARIANT, c["dict_size"], c["l0"] or min(32.0, c["dict_size"] / 2), fixed)
    check_sizes(spec)  # its name is the script's business
    if not c["layers"] or not c["seeds"]:
        raise ValueError(
            f"layers are {c['layers']} and seeds {c['seeds']}; give at least one of each, in a list"
        )
    optim = Optim(lr=c["learning_rate"], warmup=c["warmup_steps"])
    runs = []
    for layer in c["layers"]:
        source = Source(
            model=c["model_name"],
            corpus=c["corpus"],
            hook=f"layers.{layer}",
            context=c["context_length"],
            tokens=c["num_tokens"],
            batch=c["sae_batch_size"],
            buffer=c["buffer_size"],
            lm_batch=c["llm_batch_size"],
        )
        runs += [Run(spec, source, optim, seed=seed, code=code) for seed in c["seeds"]]
    plan = Plan("experiment.py", tuple(runs), evals=tuple(c["eval_types"]))
    check_plan(plan)
    return plan


def seeded(build: Callable[..., object], source: str) -> Build:
    """A script's `build(d_in)` as the trainer calls it: equal seeds give equal initial weights.

    `source`: the text of the script, kept beside an SAE of a class of its own.
    """

    def seeded_build(spec: Spec, d_in: int, seed: int, hook: Hook) -> Variant:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            written = build(d_in)
        variant = variant_of(written, d_in, hook, source)
        if variant.sae.n_latents != spec.n_latents or variant.sae.d_in != d_in:
            raise ValueError(
                f"build made an SAE of {variant.sae.d_in} x {variant.sae.n_latents}, asked for is "
                f"d_in x dict_size = {d_in} x {spec.n_latents}"
            )
        return variant

    return seeded_build


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and evaluate the SAE that this file describes."
    )
    parser.add_argument(
        "--out_dir", required=True, type=Path, metavar="run_1", help="folder of the results"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="keep what another script made there as <out_dir>.before-N, and start anew",
    )
    return parser.parse_args()


def _finished(out: Path, identity: str) -> bool:
    path = out / "experiment.json"
    if not path.exists():
        return False
    record = read_json(path)
    return bool(record.get("finished")) and record.get("id") == identity


def _clear(out: Path, identity: str, *, replace: bool) -> None:
    """Move a failed experiment aside, and keep an interrupted one of the same script.

    Raises `OtherContent` for a foreign folder, and for what another script made there unless it is
    to be replaced.
    """
    if not out.exists() or not any(out.iterdir()):
        return
    path = out / "experiment.json"
    if not path.exists():
        raise OtherContent(
            f"{out} holds files that no experiment wrote (no experiment.json); give another "
            "--out_dir"
        )
    record = read_json(path)
    if (out / "failed.txt").exists():
        _set_aside(out, "failed")
    elif record.get("id") != identity:
        if not replace:
            state = "a finished" if record.get("finished") else "an unfinished"
            raise OtherContent(
                f"{out} holds {state} experiment of another script ({out / 'experiment.py'}); give "
                f"another --out_dir, or --replace, which keeps that one as {out.name}.before-N"
            )
        _set_aside(out, "before")


def _set_aside(out: Path, why: str) -> None:
    number = 1
    while (aside := out.with_name(f"{out.name}.{why}-{number}")).exists():
        number += 1
    os.replace(out, aside)


class Explained:
    """A block whose failure ends as a short explanation: where in the script, what happened, what
    to do.
    """

    def __init__(self, script: Path, out: Path, identity: str):
        self.script, self.out, self.identity = script, out, identity

    def __enter__(self) -> "Explained":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None or isinstance(error, SystemExit):
            return
        if isinstance(error, KeyboardInterrupt):
            text = f"{str(error) or 'stopped'}.\nTo go on, run the same command again."
        else:
            text = explanation(error, self.script)
            # who is refused writes nothing: the folder is another's
            if self._began() and not isinstance(error, OtherContent):
                write_text(self.out / "failed.txt", text)
            if not explained(error):
                traceback.print_exception(error.with_traceback(_own_part(error, self.script)))
        sys.stderr.write(f"\n{text}\n")
        raise SystemExit(exit_code(error, in_script=bool(frames_in(error, self.script))))

    def _began(self) -> bool:
        """Whether the folder is that of this very experiment, unfinished: what another one left
        there has not failed.
        """
        path = self.out / "experiment.json"
        if not path.exists():
            return False
        return read_json(path) == {"id": self.identity, "finished": False}


CURES = (
    (NameError, "the name is not defined or imported; define it, or correct its spelling"),
    (ImportError, "the module or name cannot be imported; correct it, or do without"),
    (AttributeError, "there is no such attribute"),
    (
        TypeError,
        "a wrong type or number of arguments; compare with the signature of what is called",
    ),
    (IndexError, "an index or axis outside the tensor; x is [N, D], z and pre are [N, L]"),
    (
        RuntimeError,
        "if shapes do not fit: x and x_hat are [N, D], z and pre are [N, L], a term returns a "
        "scalar",
    ),
)


def frames_in(error: BaseException, script: Path) -> list[traceback.FrameSummary]:
    """Where in the functions of the script it happened, outermost first."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == script and frame.name != "<module>"
    ]


def explanation(error: BaseException, script: Path) -> str:
    """Cause, place in the script, and cure, under 1,500 characters."""
    inside = frames_in(error, script)
    where = f"{script.name}, line {inside[-1].lineno}: {inside[-1].line}\n" if inside else ""
    ours = raised_here(error) or (explained(error) and not inside)  # its own text says the cure
    name = "" if ours else f"{type(error).__name__}: "
    cure = next((text for kind, text in CURES if isinstance(error, kind)), "") if inside else ""
    if isinstance(error, AttributeError) and inside:
        cure += _attributes(error)
    tail = f"\ncure: {cure}" if cure and not ours else ""
    return f"FAILED  {where}cause: {name}{explain(error)[:900]}{tail}"


def _attributes(error: AttributeError) -> str:
    """Which ones there are: all of a small thing, such as a step, the nearest of a large one."""
    names = [name for name in dir(error.obj) if not name.startswith("_")]
    few = f"; it has {', '.join(names)}" if len(names) < ALL_NAMED else ""
    return f"{nearest_name(error.name or '', names)}{few}"


def _own_part(error: BaseException, script: Path) -> TracebackType | None:
    """The traceback from the first function of the script on: what called it is no news."""
    whole = part = error.__traceback__
    while part is not None:
        code = part.tb_frame.f_code
        if Path(code.co_filename).resolve() == script and code.co_name != "<module>":
            return part
        part = part.tb_next
    return whole
