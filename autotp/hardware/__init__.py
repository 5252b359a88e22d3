"""Hardware: what the machine can do. Profile classes, their JSON, and the catalogue."""
