"""Parsers fed with what nobody means: a short run as tests, a long one with `python -m tests.fuzz --minutes 5`."""
