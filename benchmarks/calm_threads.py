"""What calm threads cost on an idle machine and win beside busy processes: any command, taking turns.

    python benchmarks/calm_threads.py --competitors 0 6 --rounds 3 -- saelab demo --out /tmp/demo

Prints the median seconds of the command when threads wait as a `saelab` command lets them (`calm`),
always spin (`OMP_WAIT_POLICY=ACTIVE`) and never do (`PASSIVE`), for every number of competing
processes, with the ratio to the first of these. Without a command it times training steps of `batch_topk`, in
tokens per second, and also torch's own default (a `saelab` command is calm where nothing is set).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from saelab.threads import SET_BY_USER

WAITING = {
    "calm": {},
    "ACTIVE": {"OMP_WAIT_POLICY": "ACTIVE"},
    "unset": {},
    "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY = "while True: pass"
STEP = """
import sys, time
from saelab.threads import calm
if sys.argv[2] == "calm":
    calm()
from saelab.runs import Run, Source, Spec
from saelab.testing.fakes import SparseSource
from saelab.train import Training
from saelab.variants import build
steps = int(sys.argv[1])
run = Run(Spec("batch_topk", n_latents=1024, l0=32), Source(tokens=steps * 1024, batch=1024))
started, n = None, 0
for _ in Training([run], SparseSource(d_in=256, batch=1024), build=build):
    n += 1
    if n == 5:
        started = time.perf_counter()
print((n - 5) * 1024 / (time.perf_counter() - started))
"""


def measured(policy: str, command: list[str], limit: float) -> float:
    """Seconds of the command, or the number that it printed when there is no command."""
    inherited = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    env = inherited | WAITING[policy]
    started = time.monotonic()
    own = command or [sys.executable, "-c", STEP, "60", policy]
    try:
        done = subprocess.run(own, env=env, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return float("inf")
    if done.returncode:
        sys.exit(f"{' '.join(own[:3])} ended with {done.returncode}:\n{done.stderr}")
    return time.monotonic() - started if command else float(done.stdout)


def main() -> None:
    """Time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--competitors", type=int, nargs="+", default=[0, 6])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waiting", nargs="+", choices=WAITING, default=list(WAITING))
    parser.add_argument(
        "--limit", type=float, default=1_200, help="seconds after which a command is stopped: inf"
    )
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    unit = "s" if args.command else "tokens/s"
    for competitors in args.competitors:
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(competitors)]
        try:
            rounds = [
                {policy: measured(policy, args.command, args.limit) for policy in args.waiting}
                for _ in range(args.rounds)
            ]
        finally:
            for process in busy:
                process.kill()
        median = {
            policy: statistics.median(values[policy] for values in rounds)
            for policy in args.waiting
        }
        for policy in args.waiting:
            ratio = median[policy] / median[args.waiting[0]]
            numbers = " ".join(f"{values[policy]:,.0f}" for values in rounds)
            print(
                f"{competitors} competitors, {policy}: {median[policy]:,.1f} {unit} ({numbers}), "
                f"{policy} / {args.waiting[0]} {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
