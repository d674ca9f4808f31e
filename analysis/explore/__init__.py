"""Exploring machines: spaces, sweeps, fronts, searches."""
