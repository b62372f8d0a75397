"""Options of the HTTP proxies."""

import pytest

from salver.schema.errors import InvalidOption
from salver.schema.http import HTTPOptions, ProxyLocation, http_options, proxy_location


def test_the_defaults_listen_on_loopback() -> None:
    options = http_options(None)
    assert (options.host, options.port, options.root_path) == ("127.0.0.1", 8000, "")
    assert (options.request_timeout_s, options.keep_alive_timeout_s) == (None, 90.0)


def test_a_dictionary_is_taken_and_text_is_converted() -> None:
    assert http_options({"port": "0", "host": None}) == HTTPOptions(port=0, host=None)


def test_an_object_is_copied() -> None:
    given = HTTPOptions(port=1)
    options = http_options(given)
    given.port = 2
    assert options.port == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70000}, "Option 'http_options.port' got 70000: expected an integer from 0 to 65535."),
        ({"keep_alive_timeout_s": 0}, "Option 'http_options.keep_alive_timeout_s' got 0: expected a number > 0."),
        ({"prt": 1}, "Option 'http_options' has no key 'prt'. Did you mean 'port'?"),
        (HTTPOptions(port=-1), "Option 'http_options.port' got -1"),
        (4, "Option 'http_options' got 4: expected a dictionary or an instance of HTTPOptions."),
    ],
    ids=["port", "timeout", "unknown key", "object", "no dictionary"],
)
def test_what_is_not_allowed_is_said(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        http_options(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ProxyLocation.EveryNode),
        ("HeadOnly", ProxyLocation.HeadOnly),
        ("NoServer", ProxyLocation.Disabled),
        (ProxyLocation.Disabled, ProxyLocation.Disabled),
    ],
)
def test_a_proxy_location_has_a_name(given: str | None, expected: ProxyLocation) -> None:
    assert proxy_location(given) is expected


@pytest.mark.parametrize("given", ["Everywhere", 3])
def test_an_unknown_proxy_location_is_answered_with_the_known_ones(given: str) -> None:
    with pytest.raises(InvalidOption, match="expected one of 'Disabled', 'HeadOnly', 'EveryNode'"):
        proxy_location(given)
