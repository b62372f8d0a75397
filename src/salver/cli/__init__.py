"""The `salver` command. Everything it does, it does through `api`."""
