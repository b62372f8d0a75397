"""`python -m bench.peers.litserve_apps APP PORT`: serve a workload with LitServe, one worker, until SIGINT."""

import sys
from collections.abc import Iterator
from typing import Any

import litserve
from fastapi import Request, Response

from bench.work import CHUNKS, Answer, Question, answer


class Noop(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: Request) -> None:
        return None

    def predict(self, x: None) -> str:
        return "ok"

    def encode_response(self, output: str) -> Response:
        return Response(output, media_type="text/plain")


class Predict(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: Question) -> Question:
        return request

    def predict(self, x: Question) -> Answer:
        return answer(x)

    def encode_response(self, output: Answer) -> Answer:
        return output


class Stream(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: Request) -> None:
        return None

    def predict(self, x: None) -> Iterator[bytes]:
        yield from CHUNKS

    def encode_response(self, output: Iterator[bytes]) -> Any:  # What FastAPI would read as the type of a body.
        yield from output


APPS: dict[str, Any] = {
    "noop": lambda: Noop(api_path="/"),
    "predict": lambda: Predict(api_path="/predict"),
    "stream": lambda: Stream(api_path="/", stream=True),
}


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    server = litserve.LitServer(APPS[name](), accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", num_api_servers=1)


if __name__ == "__main__":
    main()
