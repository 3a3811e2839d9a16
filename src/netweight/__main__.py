"""`python -m netweight` is the command `netweight`."""

from __future__ import annotations

import sys

from netweight.cli import main

if __name__ == "__main__":
    sys.exit(main())
