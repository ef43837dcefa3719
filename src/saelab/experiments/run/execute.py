"""Carry a plan out: check everything, train what is not trained, evaluate what is not evaluated,
compare.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from saelab.experiments.compare.summary import Summary, summarise
from saelab.experiments.evaluate.score import Export, evaluate_into, facts_of, prepare_bench
from saelab.experiments.folders import claim, run_folder
from saelab.experiments.listen import Listener, Silent
from saelab.experiments.plan import Plan
from saelab.experiments.run.adopt import adopt, check_reuse
from saelab.experiments.run.caching import cached, check_folder, kept, source_folder
from saelab.experiments.run.checkpoint import groups
from saelab.experiments.run.group import train_together
from saelab.experiments.run.preflight import check_disk, preflight, sources
from saelab.ground.cache import CachedStream
from saelab.ground.stream import ActivationStream
from saelab.lm.model import HFModel, load_model
from saelab.terms.base import Need
from saelab.text.windows import load_windows
from saelab.train.loop import Build
from saelab.types import Run, Source
from saelab.variants import build as build_variant


def execute(
    plan: Plan,
    out: Path,
    *,
    listener: Listener | None = None,
    build: Build | None = None,
    exports: Iterable[Export] = (),
    cache: Path | None = None,
    reuse: Path | None = None,
) -> Summary:
    """Bring `plan` to its end in the folder `out` and return its summary; what is done already is
    skipped.

    `build` replaces the table of variants; `exports` write core results in other formats. `cache`:
    a folder that training reads its activations from; those that are not there yet are written
    first. `reuse`: another output folder, whose finished runs are taken over where they are the
    plan's own by content id. Unhealthy runs are evaluated where possible and marked; call
    `Summary.check()` to have them raise. Raises `ValueError` and `OSError` for what cannot work,
    before the model loads (where the cache is too large or of another model: after); `Interrupted`
    on Ctrl-C or SIGTERM, after saving.
    """
    out, listener, started, worked = Path(out), listener or Silent(), time.monotonic(), False
    preflight(plan, own_build=build is not None)
    if cache is not None:
        check_folder(cache)
    if reuse is not None:
        check_reuse(reuse)
    claim(plan, out)
    for source in sources(plan.runs):
        runs = [run for run in plan.runs if run.source == source]
        unfinished = [run for run in runs if not run_folder(out, run).evaluated(plan.evals)]
        if len(unfinished) < len(runs):
            listener.note(f"{len(runs) - len(unfinished)} of {len(runs)} runs are done already")
        if unfinished:
            lm = load_model(source.model, source.hook)
            if reuse is not None:
                missing = [run for run in unfinished if not run_folder(out, run).trained]
                adopt(missing, out, reuse, listener, weights_hash=lm.weights_hash)
            _train(runs, unfinished, lm, out, listener, build or build_variant, cache)
            _evaluate(plan, unfinished, lm, out, listener, exports)
            worked = True
    return summarise(plan, out, seconds=time.monotonic() - started if worked else None)


def _train(
    runs: Sequence[Run],
    unfinished: Sequence[Run],
    lm: HFModel,
    out: Path,
    listener: Listener,
    build: Build,
    cache: Path | None,
) -> None:
    pending = [run for run in unfinished if not run_folder(out, run).trained]
    if not pending:
        return
    check_disk(pending, lm.d_in, out)
    stream = _stream(pending[0].text, lm, cache, listener)
    facts = facts_of(lm, stream.facts)
    meet = Need.of if cache is None else kept(source_folder(cache, pending[0].text))
    for members in groups(runs, pending, out):
        train_together(list(members), stream, out, listener, build, facts=facts, meet=meet)


def _stream(
    source: Source, lm: HFModel, cache: Path | None, listener: Listener
) -> ActivationStream | CachedStream:
    """The activations to train on, live or from disk; says what a user should know about them."""
    live = ActivationStream(lm, load_windows(source, lm, "train"), source)
    stream = live if cache is None else cached(live, cache, listener)
    facts = stream.facts
    left_out = (
        ", ".join(f"{name} {share:.2%}" for name, share in facts["dropped"].items()) or "none"
    )
    buffer = f"shuffle buffer {facts['buffer_bytes'] / 1e6:,.0f} MB"
    listener.note(
        f"{lm.name} at {stream.hook.name}, d_in {stream.d_in}; tokens left out: {left_out}; "
        f"{buffer}"
    )
    if facts["repeats"]:
        kept, wanted, times = (
            facts["kept_activations"],
            source.steps * source.batch,
            facts["epochs"],
        )
        listener.note(
            f"{source.corpus} holds {kept:,} activations of the {wanted:,}: it repeats, "
            f"{times:.1f} times"
        )
    return stream


def _evaluate(
    plan: Plan,
    runs: Sequence[Run],
    lm: HFModel,
    out: Path,
    listener: Listener,
    exports: Iterable[Export],
) -> None:
    folders = [run_folder(out, run) for run in runs]
    pending = [folder for folder in folders if not folder.evaluated(plan.evals)]
    if not pending:
        return
    listener.note(
        f"evaluating {len(pending)} SAE{'s' * (len(pending) > 1)} on held-out text: "
        f"{', '.join(plan.evals)}"
    )
    source = runs[0].text
    bench = prepare_bench(lm, source, plan.evals)
    for folder in pending:
        evaluate_into(folder.path, folder.load(), bench, exports)
        listener.note(f"evaluated {folder.name}")
