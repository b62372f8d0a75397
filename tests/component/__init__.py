"""One room at a time, over in-memory transport, a fake engine and a manual clock."""
