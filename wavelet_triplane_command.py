"""The console command `wavelet-triplane`: the same as `python -m runtime`, whatever lies in the working folder."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line of the `runtime` package that this file was installed with."""
    own = Path(__file__).resolve().parent / "runtime"
    try:
        import runtime

        found = Path(getattr(runtime, "__file__", None) or "?").resolve()
    except Exception as error:  # Whatever a stranger's module raises.
        found = Path(f"a module that raises {type(error).__name__}: {error}")
    if found.parent != own:
        sys.exit(f"error: `import runtime` finds {found}, not {own}. Take that off PYTHONPATH, or rename it.")
    from runtime.__main__ import run

    run()


if __name__ == "__main__":
    main()
