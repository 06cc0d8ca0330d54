"""`python -m paddock_probe`."""

import sys

from .cli import main

sys.exit(main())
