"""Why, and what if: questions to a plan, answered by solving again."""
