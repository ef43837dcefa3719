"""What `saelab demo` runs; `saelab run plans/demo.py` is the same. Copy this file to start an
experiment of your own.

def plan() -> Plan:
    source = Source(model="pylm", tokens=1_000_000) runs = tuple(Run(Spec("topk", n_latents=2_048,
    l0=l0), source, seed=s) for l0 in (16, 32, 64) for s in (0, 1)) return Plan("topk-sweep", runs)
"""

from saelab.experiments.demo import plan

__all__ = ["plan"]
