"""Pictures of runs: what they learned, how, and what they look at."""
