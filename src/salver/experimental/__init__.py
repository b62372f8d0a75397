"""Routers under the names that they have elsewhere."""
