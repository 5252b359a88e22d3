"""Rewrite: do it. A Plan and an exported module become this rank's module."""
