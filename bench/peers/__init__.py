"""The same work on other systems. Each runs in an environment of its own (`make bench-peers`) and never sees Salver."""
