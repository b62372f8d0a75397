"""Speed and memory, measured against a baseline in the same run: `make bench`. Machines are noisy: compare ratios."""
