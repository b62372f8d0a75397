"""Routers that users write: what they subclass, and what runs them beside the router that Salver has."""
