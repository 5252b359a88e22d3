"""Breaks rules and local operators one at a time; tells which breaks the execution check finds: `make test-mutations`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "rules"))

from mutations import MUTATIONS, survives


def main() -> int:
    missed = 0
    for mutation in MUTATIONS:
        is_missed = survives(mutation)
        missed += is_missed
        print(f"{'MISSED' if is_missed else 'found ':6}  {mutation.op:30} {mutation.name}")
    print(f"{len(MUTATIONS)} breaks, {missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
