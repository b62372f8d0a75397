"""Real processes over real sockets, killed, hung and flooded."""
