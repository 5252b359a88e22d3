"""Rules: what may be split. One row per operator; strategies follow from it."""
