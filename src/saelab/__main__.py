"""The command `saelab`, also as `python -m saelab`: settles how threads wait before anything loads
torch.
"""

import sys

from saelab.threads import calm


def main() -> int:
    """Run the command line and return its exit code, see `saelab.cli.main`."""
    calm()
    from saelab.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
