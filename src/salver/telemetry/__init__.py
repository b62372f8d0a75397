"""Logs. Knows no deployments beyond their names."""
