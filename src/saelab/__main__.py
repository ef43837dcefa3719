"""The command `saelab`, also as `python -m saelab`: settles how threads wait, and what Ctrl-C does
meanwhile, before anything loads torch.
"""

import sys

from saelab.experiments.script.start import start, started


def main() -> int:
    """Run the command line and return its exit code, see `saelab.cli.main`."""
    start()
    from saelab.cli import main as run  # takes seconds

    started()
    return run()


if __name__ == "__main__":
    sys.exit(main())
