"""`python -m runtime`."""

from .cli import main

main()
