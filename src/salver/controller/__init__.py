"""The controller: holds what was asked and what is, decides, acts. Never touches a request."""
