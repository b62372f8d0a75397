"""The proxy: HTTP in, a replica's answer out. Never imports user code."""
