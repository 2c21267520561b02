"""Training: procedural objects and posed views, the stages, and the command that runs them."""
