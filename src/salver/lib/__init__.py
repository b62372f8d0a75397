"""Behaviour without domain: clocks, tasks, importing, operating-system processes. Knows nothing of serving."""
