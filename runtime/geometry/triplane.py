"""Which axes of the world the three planes of a triplane have."""

from __future__ import annotations

# (column, row, sign of row): plane 0 = XY, 1 = XZ, 2 = YZ; a row runs along sign * axis.
PLANE_AXES = ((0, 1, -1), (0, 2, 1), (2, 1, -1))
