"""Start of the `dtn-det` command.

`import dtn_det` registers the backbones in MMDetection, which imports MMDetection: seconds that `dtn-det --help` must
not cost. So the command starts outside the package and asks it, through an environment variable that is gone again
before anything else runs, to leave the registration to the subcommands that need it.
"""

from __future__ import annotations

import os
import sys

DEFER = "DTN_DET_DEFER_REGISTRATION"


def main() -> int:
    """Run `dtn_det.cli.main.main` without registering the backbones first; returns the exit code."""
    before = os.environ.get(DEFER)
    os.environ[DEFER] = "1"
    try:
        from dtn_det.cli.main import main as run
    finally:
        if before is None:
            del os.environ[DEFER]
        else:
            os.environ[DEFER] = before
    return run()


if __name__ == "__main__":
    sys.exit(main())
