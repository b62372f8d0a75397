"""A real browser against a real run; `make test-browser` installs it."""
