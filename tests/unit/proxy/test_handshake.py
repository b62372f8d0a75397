"""The opening of a WebSocket, header by header."""

import pytest

from salver.proxy.handshake import BAD_KEY, BAD_SUBPROTOCOLS, NO_VERSION, OTHER_VERSION, answer_to, fault_of
from salver.schema.outcomes import Outcome

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")


def test_the_example_of_the_standard() -> None:
    assert fault_of([KEY, VERSION]) is None
    assert answer_to([VERSION, KEY]) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        pytest.param([VERSION], BAD_KEY, id="no key"),
        pytest.param([KEY, KEY, VERSION], BAD_KEY, id="two keys"),
        pytest.param([(KEY[0], b"x"), VERSION], BAD_KEY, id="key is no base64"),
        pytest.param([(KEY[0], b""), VERSION], BAD_KEY, id="key is empty"),
        pytest.param([(KEY[0], b"\xff" * 24), VERSION], BAD_KEY, id="key is no ASCII"),
        pytest.param([(KEY[0], b"dGhlIHNhbXBsZSBub25j"), VERSION], BAD_KEY, id="key of 15 bytes"),
        pytest.param([KEY], NO_VERSION, id="no version"),
        pytest.param([KEY, VERSION, VERSION], NO_VERSION, id="two versions"),
        pytest.param([KEY, (VERSION[0], b"8")], OTHER_VERSION, id="version 8"),
        pytest.param([KEY, (VERSION[0], b"13, 8")], OTHER_VERSION, id="a list of versions"),
        pytest.param([KEY, (VERSION[0], b"")], OTHER_VERSION, id="empty version"),
        pytest.param([KEY, VERSION, (b"sec-websocket-protocol", b"a b")], BAD_SUBPROTOCOLS, id="subprotocol"),
        pytest.param([KEY, VERSION, (b"sec-websocket-protocol", b"a,,b")], BAD_SUBPROTOCOLS, id="empty subprotocol"),
        pytest.param([KEY, VERSION, (b"sec-websocket-protocol", b"a, b"), (b"origin", b"x")], None, id="proper"),
        pytest.param([(KEY[0], b" " + KEY[1] + b"\t"), VERSION], None, id="white space"),
    ],
)
def test_what_a_client_must_ask(headers: list[tuple[bytes, bytes]], fault: Outcome | None) -> None:
    assert fault_of(headers) is fault


def test_who_speaks_another_version_hears_which_one_is_spoken() -> None:
    assert OTHER_VERSION.status == 426
    assert (b"sec-websocket-version", b"13") in OTHER_VERSION.headers
