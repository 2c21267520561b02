"""`python -m runtime`."""

import os
import sys

from .cli import main

try:
    main()
except SystemExit as done:
    # The files are closed: the system takes back at once what Python would free piece by piece.
    if done.code not in (0, None):
        raise
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
