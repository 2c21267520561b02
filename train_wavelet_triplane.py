"""The specification's name for training: `python train_wavelet_triplane.py --config FILE --out RUN`."""

import typer

from model.training.train import main

if __name__ == "__main__":
    typer.run(main)
