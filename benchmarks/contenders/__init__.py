"""Ways to run one Llama on several ranks, all with the same call, so that they can be timed against each other."""
