"""``python -m kldiv``: the command line."""

import sys

from kldiv.cli import main

sys.exit(main())
