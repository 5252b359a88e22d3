"""What to do: from a captured model to a plan."""
