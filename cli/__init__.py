"""The `autotp` command: one file per command, no logic of its own. Installed as `autotp.cli`."""
