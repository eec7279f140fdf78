"""`python -m dtn_det` runs the command line `dtn-det`, even if its script is not on the path."""

import sys

from dtn_det.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
