"""What this machine has, for `saelab doctor` and for questions about a run that is slow or does not
start.
"""

import importlib.resources
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from saelab.experiments.compare.summary import versions
from saelab.threads import cores, waiting


def findings() -> Iterator[tuple[str, str]]:
    """Name and value, one line each; what is wrong says what to do."""
    import torch

    yield from versions().items()
    yield (
        "torch threads",
        f"{torch.get_num_threads()}; this process may use {cores()} of {os.cpu_count()} cores",
    )
    yield "waiting threads", waiting()
    yield (
        "GPU",
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else "none (everything runs on the CPU)",
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield "memory", f"{pages / 2**30:.1f} GiB"
    yield "disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free in {Path.cwd()}"
    weights = Path(str(importlib.resources.files("saelab.lm.pylm") / "weights"))
    there = (weights / "config.json").exists()
    yield (
        "embedded model",
        f"{weights}" if there else f"MISSING in {weights}; make it: python -m saelab.lm.pylm.train",
    )
    vision = importlib.util.find_spec("torchvision") is not None
    yield (
        "torchvision",
        "present: one that does not fit torch breaks transformers; uninstall it"
        if vision
        else "absent, good",
    )
