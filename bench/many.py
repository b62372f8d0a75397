"""`python -m bench.many PORT COUNT`: serve a no-op at "/", and others beside it, each an application with its route."""

import signal
import sys

import salver as serve
from bench.apps import Noop


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    serve.start(http_options={"port": port})
    for number in range(1, count):
        serve.run(Noop.bind(), name=f"other-{number}", route_prefix=f"/other/{number}")
    serve.run(Noop.bind(), name="noop", route_prefix="/")
    signal.sigwait([signal.SIGINT])
    serve.shutdown()


if __name__ == "__main__":
    # Blocked before any thread starts, so that only `sigwait` sees it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    main()
