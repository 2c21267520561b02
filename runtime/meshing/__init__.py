"""From a density field to a mesh that other programs open: surface, cleaning, texture, files."""
