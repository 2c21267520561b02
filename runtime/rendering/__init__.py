"""Drawing a field: occupancy, marching along rays, reading triplanes, work on several threads."""
