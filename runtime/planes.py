"""Which way the three feature planes lie in the world.

Plane 0 is XY (column x, row -y: it looks like the picture), 1 is XZ (column x, row z), 2 is YZ (column z, row -y).
"""

# For each plane: the world axis of its columns, that of its rows, and the sign of the rows.
PLANE_AXES = ((0, 1, -1), (0, 2, 1), (2, 1, -1))
