"""Long runs by hand, and short ones of the same in the suite: see docs/requests.md."""
