"""Report templates shipped with autotp: data only."""
