"""Bytes between processes: one framed, multiplexed connection per pair. Knows no deployments and no users' code."""
