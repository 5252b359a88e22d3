"""Check: a rule is right when running it says so. An operator is run whole and in parts, and both are compared."""
