"""Applications in unit tests: the same replicas, routers and limits, inside one process and without sockets.

`serve.run(app, local_testing_mode=True)` runs an application so; here is what tests need besides.
"""

from salver.testing.applications import http_app, local_app

__all__ = ["http_app", "local_app"]
