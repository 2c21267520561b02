"""The specification's name for the five figures: `python visualize_wavelet_triplane.py [IMAGE] [--out DIR]`."""

import typer

from examples.figures import main

if __name__ == "__main__":
    typer.run(main)
