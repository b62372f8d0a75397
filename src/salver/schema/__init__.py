"""Nouns without behaviour: what all rooms agree on. Knows no sockets, no tasks, no engine."""
