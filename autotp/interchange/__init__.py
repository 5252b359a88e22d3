"""Interchange: a plan in the words of other tools, and its graph in the formats of graph libraries."""
