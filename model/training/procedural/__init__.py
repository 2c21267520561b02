"""Objects made of solids, from seeds: exact geometry, surface patterns, twenty families."""
