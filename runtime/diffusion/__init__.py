"""Noise schedule, samplers as tables, and seeded noise."""
