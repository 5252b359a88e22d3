"""Cost: what a choice takes, in seconds and bytes; builds the numeric Problem."""
