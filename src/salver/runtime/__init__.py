"""What user code calls while it runs. Knows the handle and nothing above it."""
