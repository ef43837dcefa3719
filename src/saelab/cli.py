"""The command line: saelab demo | train | eval | run | synth | report | list | doctor. Flags come
from the signatures below.
"""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from saelab import __version__
from saelab.cli_list import show
from saelab.cli_synth import synth
from saelab.cli_values import (
    Flag,
    Folder,
    FolderIfGiven,
    Names,
    Real,
    RealIfGiven,
    Seeds,
    TextIfGiven,
    Whole,
    WholeIfGiven,
)
from saelab.numbers import nearest_name
from saelab.runs import Optim, Run, Source, Spec
from saelab.threads import use_threads

if TYPE_CHECKING:
    from saelab.experiments.compare.summary import Summary
    from saelab.experiments.plan import Plan

SOURCE, OPTIM = Source(), Optim()
Cache = Annotated[
    FolderIfGiven,
    arg(
        help="keep the activations in this folder; commands that need the same ones read them "
        "there (default: none kept)"
    ),
]
Threads = Annotated[
    WholeIfGiven,
    arg(help="threads of torch (default: OMP_NUM_THREADS, or as many as there are cores to use)"),
]
DESCRIPTION = """Train sparse autoencoders (SAEs) on the activations of a language model, evaluate
and compare them.

Start with `saelab demo`: a few minutes, no download. A command that was stopped goes on when it is
given again. Help on a command: saelab train --help; what there is to choose from: saelab list. With
--debug (or SAELAB_DEBUG=1) an error shows its traceback."""


def demo(*, out: Folder = Path("runs/demo"), threads: Threads = None) -> None:
    """Train and compare four kinds of SAE on the embedded language model, and write a report.

    Args:
        out: where results go
    """
    from saelab.experiments.demo import plan

    _carry_out(plan(), out, threads=threads).check()


def train(
    variant: Annotated[Positional[str], arg(metavar="VARIANT")],
    *,
    model: str = SOURCE.model,
    corpus: str = SOURCE.corpus,
    hook: str = SOURCE.hook,
    l0: Real = Spec.l0,
    n_latents: Whole = Spec.n_latents,
    tokens: Whole = SOURCE.tokens,
    seeds: Seeds = (0,),
    lr: RealIfGiven = OPTIM.lr,
    warmup: Whole = OPTIM.warmup,
    context: Whole = SOURCE.context,
    batch: Whole = SOURCE.batch,
    buffer: Whole = SOURCE.buffer,
    lm_batch: Whole = SOURCE.lm_batch,
    max_norm: RealIfGiven = SOURCE.max_norm,
    text_column: str = SOURCE.text_column,
    evals: Names = (),
    out: FolderIfGiven = None,
    cache: Cache = None,
    threads: Threads = None,
) -> None:
    """Train one variant of SAE on a model and a text, evaluate it, and write a report.

    Args:
        variant: a base or a row, the numbers in which it differs, and parts that join it, such as
            topk:aux=.1 or batch_topk:refine=.15+metric:weight=4; all names: saelab list variants
        model: pylm (the embedded model), a local folder, or a Hugging Face id
        corpus: stdlib (the embedded text), a .txt, .jsonl or .parquet file, or
            hf:<dataset>[:<config>]
        hook: middle, layers.5, blocks.5.hook_resid_post, or a module path
        l0: latents active per token, on average
        n_latents: latents of the SAE
        tokens: activations to train on; a shorter text repeats
        seeds: one SAE is trained per seed, all on the same batches
        lr: learning rate (default: derived from the number of latents and of steps)
        warmup: steps of learning-rate warm-up
        context: tokens per window of text
        batch: activations per step
        buffer: activations shuffled together; its memory is printed
        lm_batch: windows per forward of the language model
        max_norm: leave out activations whose norm exceeds this multiple of the median norm
            (default: none are)
        text_column: the column of jsonl, parquet and Hugging Face rows that holds the text
        evals: evaluations to make (default: the core scores); saelab list evals has all
        out: where results go (default: runs/<variant>-<id>)
    """
    from saelab.variants import parse_spec

    text = {"corpus": corpus, "text_column": text_column, "context": context, "tokens": tokens}
    reading = {"batch": batch, "buffer": buffer, "lm_batch": lm_batch, "max_norm": max_norm}
    source = replace(SOURCE, model=model, hook=hook, **text, **reading)
    spec = replace(parse_spec(variant), n_latents=n_latents, l0=l0)
    optim = replace(OPTIM, lr=lr, warmup=warmup)
    runs = tuple(Run(spec, source, optim, seed=seed) for seed in seeds)
    plan = _plan_of(runs, evals)
    _carry_out(plan, out or Path("runs") / plan.name, cache, threads=threads).check()


def evaluate(
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")],
    *,
    model: TextIfGiven = None,
    corpus: TextIfGiven = None,
    hook: TextIfGiven = None,
    evals: Names = (),
    out: FolderIfGiven = None,
    run_code: Flag = 0,
    threads: Threads = None,
) -> None:
    """Evaluate an SAE that is on disk, of a language model or a world, anew, and write a report.

    Args:
        folder: a run folder (runs/<name> of an output folder) or an SAE folder
        model: language model (default: what the SAE was trained on; so for corpus and hook)
        corpus: text; its held-out part is used
        hook: where in the model
        evals: evaluations to make (default: the core scores; in a world, all that it has); saelab
            list evals has all
        out: where results go (default: the run folder, or <SAE folder>-eval)
        run_code: run the code in the folder, which an SAE of a class of its own is made by; read it
            first
    """
    from saelab.console import listener, open_console, show_results
    from saelab.experiments.evaluate import evaluate as evaluation
    from saelab.interop.saebench import export
    from saelab.sae.io import load_own_sae, load_sae

    use_threads(threads)
    flags = {"model": model, "corpus": corpus, "hook": hook}
    given = {name: value for name, value in flags.items() if value is not None}
    source = evaluation.source_of(folder, given) if given else None
    hear = listener(open_console())
    load = load_own_sae if run_code else load_sae
    summary = evaluation.evaluate(
        folder, evals=evals, source=source, out=out, listener=hear, exports=[export], load=load
    )
    show_results(summary, evals).check()


def run(
    plan_file: Annotated[Positional[Path], arg(metavar="PLAN.py")],
    *,
    out: FolderIfGiven = None,
    cache: Cache = None,
    reuse: FolderIfGiven = None,
    jobs: Whole = 1,
    threads: Threads = None,
) -> None:
    """Carry out a plan, over language models or worlds: a Python file with a function `plan()` that
    returns a Plan, or several, each of which gets a folder of its own. What is done already is
    skipped.

    Args:
        plan_file: for instance plans/demo.py
        out: where results go (default: runs/<name of the plan>)
        reuse: another output folder; runs of this plan that are finished there are taken over, not
            trained again
        jobs: processes; each trains and evaluates the runs of one stream of activations, or its
            share of them, with its share of the cores
    """
    from saelab.experiments.load import load_plans

    plans = load_plans(plan_file)
    whole = out or Path("runs") / (plan_file.stem if plans[1:] else plans[0].name)
    summaries = []
    for plan in plans:
        folder = whole / plan.name if plans[1:] else whole
        summaries.append(_carry_out(plan, folder, cache, reuse, threads=threads, jobs=jobs))
    for summary in summaries:  # an unhealthy run of one plan does not keep the others from running
        summary.check()


def report(folder: Annotated[Positional[Path], arg(metavar="FOLDER")]) -> None:
    """Write report.html anew from the results in a folder.

    Args:
        folder: an output folder (of demo, train, run), or a run folder
    """
    from saelab.report import write_report

    print(f"report   {write_report(folder)}")


def doctor() -> None:
    """Say what this machine has: versions, threads, GPU, memory, disk, the embedded model."""
    from saelab.doctor import findings

    use_threads()
    for name, value in findings():
        print(f"{name:18} {value}")


COMMANDS = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "run": run,
    "synth": synth,
    "report": report,
    "list": show,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 good, 1 an unhealthy run, 2 what the user can mend,
    130 stopped.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or os.environ.get("SAELAB_DEBUG", "") not in ("", "0")
    argv = [word for word in argv if word != "--debug"]
    if argv[:1] in ([], ["help"]):
        argv = [*argv[1:2], "--help"]
    if argv in (["--version"], ["version"]):
        print(f"saelab {__version__}")
        return 0
    name, *words = argv
    if name not in (*COMMANDS, "-h", "--help"):
        near, commands = nearest_name(name, COMMANDS), ", ".join(COMMANDS)
        text = f"no command {name!r}{near}; the commands are {commands}. Help: saelab --help"
        print(f"saelab: {text}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        if name in COMMANDS:
            tyro.cli(COMMANDS[name], prog=f"saelab {name}", args=words, use_underscores=True)
        else:
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="saelab", description=DESCRIPTION, args=argv
            )
    except SystemExit:
        if argv[0] == train.__name__ and {"-h", "--help"} & {*argv}:
            from saelab.variants import listing

            print(f"\n{listing()}")
        raise
    except KeyboardInterrupt as stop:
        again = shlex.join(["saelab", *argv])
        print(
            f"\nsaelab: {str(stop) or 'stopped; what was finished is kept'}.\nTo go on: {again}",
            file=sys.stderr,
        )
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as problem:
        from saelab.console import error
        from saelab.experiments.failure import exit_code, explain, explained

        if debug or not explained(problem):
            traceback.print_exception(problem)
        error(explain(problem))
        return exit_code(problem, in_script=False)
    return 0


def _carry_out(
    plan: "Plan",
    out: Path,
    cache: Path | None = None,
    reuse: Path | None = None,
    *,
    threads: int | None,
    jobs: int = 1,
) -> "Summary":
    """Execute a plan and show what came out."""
    from saelab.console import listener, open_console, show_results
    from saelab.experiments.run.execute import execute
    from saelab.interop.saebench import export

    use_threads(threads)
    hear = listener(open_console())
    summary = execute(
        plan, out, listener=hear, exports=[export], cache=cache, reuse=reuse, jobs=jobs
    )
    return show_results(summary)


def _plan_of(runs: tuple[Run, ...], evals: tuple[str, ...]) -> "Plan":
    """A plan that is called what its run is, or its runs together."""
    from saelab.experiments.plan import Plan, run_name
    from saelab.store import content_id

    names = [run_name(run) for run in runs]
    name = f"{runs[0].spec.name}-{content_id(names, 8)}" if names[1:] else names[0]
    return Plan(name, runs, evals=evals)


if __name__ == "__main__":
    sys.exit(main())
