"""`python -m eqm` is the command `eqm`."""

import sys

from eqm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
