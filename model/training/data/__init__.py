"""Objects to train on: posed views on disk, mesh files drawn into such views, and pools that batches come from."""
