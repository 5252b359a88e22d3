"""The `autotp` command: one file per sub-command, no logic of its own."""
