"""Solver: what to pick. Numbers only; imports no torch."""
