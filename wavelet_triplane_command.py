"""The console command `wavelet-triplane`: the same as `python -m runtime`, whatever lies in the working folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line of the `runtime` package that this file was installed with."""
    own = Path(__file__).resolve().parent / "runtime" / "__init__.py"
    found = importlib.util.find_spec("runtime")
    if found is None or found.origin is None or Path(found.origin).resolve() != own:
        place = "nothing" if found is None else found.origin or found.name
        sys.exit(f"error: `import runtime` finds {place}, not {own}. Take that off PYTHONPATH, or rename it.")
    from runtime.__main__ import run

    run()


if __name__ == "__main__":
    main()
