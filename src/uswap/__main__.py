"""``python -m uswap``: the command line."""

import sys

from uswap.cli import main

if __name__ == "__main__":
    sys.exit(main())
