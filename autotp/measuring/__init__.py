"""Measuring: runs on the machine at hand, for profiles of it, for operators' times, and for plans' predictions."""
