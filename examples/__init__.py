"""Complete applications to run, read and change; each module's docstring ends with commands to try."""
