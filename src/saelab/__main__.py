"""The command `saelab`, also as `python -m saelab`: settles how threads wait before anything loads
torch.
"""

import sys

from saelab.threads import calm


def main() -> int:
    """Run the command line and return its exit code, see `saelab.cli.main`."""
    calm()
    try:
        from saelab.cli import main as run
    except KeyboardInterrupt:  # imports take seconds, and nothing has begun yet
        sys.stderr.write("\nsaelab: stopped before it began.\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
