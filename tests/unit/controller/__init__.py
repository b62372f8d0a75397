"""The control plane's decisions: events in, commands out."""
