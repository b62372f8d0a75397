"""A replica: admits requests, runs user code, answers. Knows other deployments only by handle."""
