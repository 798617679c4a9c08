"""``python -m rattention``: the command line."""

import sys

from rattention.cli import main

if __name__ == "__main__":
    sys.exit(main())
