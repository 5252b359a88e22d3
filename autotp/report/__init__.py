"""Report: show it. A Plan becomes tables and figures."""
