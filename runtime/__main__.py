"""`python -m runtime`."""

import os

from .commands import leave_without_flushing


def run() -> None:
    """Runs the command line and ends the process."""
    from .cli import main

    try:
        main()
    except SystemExit as done:
        # The files are closed: the system takes back at once what Python would free piece by piece.
        if done.code not in (0, None):
            leave_without_flushing()
            raise
    leave_without_flushing()
    os._exit(0)


if __name__ == "__main__":
    run()
