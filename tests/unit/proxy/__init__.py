"""HTTP in and out, without a socket."""
