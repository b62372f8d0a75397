"""Options of the HTTP proxies."""

from pathlib import Path

import pytest

from salver.schema.errors import InvalidOption
from salver.schema.http import HTTPOptions, ProxyLocation, http_options, proxy_location
from tests.certificates import PASSWORD, Authority, Pair


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


@pytest.fixture(scope="module")
def locked(authority: Authority) -> Pair:
    return authority.sign("locked", password=PASSWORD)


def tls(pair: Pair, **others: object) -> dict[str, object]:
    return {"ssl_certfile": pair.cert, "ssl_keyfile": pair.key, **others}


def test_with_a_certificate_and_its_key_proxies_speak_https(pair: Pair, authority: Authority) -> None:
    options = http_options(tls(pair, ssl_ca_certs=authority.cert))
    assert (options.scheme, http_options(None).scheme) == ("https", "http")
    assert options.tls is not None
    assert options.tls.paths == (pair.cert, pair.key, authority.cert)


def test_paths_hold_wherever_a_proxy_runs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(pair.cert).parent)
    assert http_options({"ssl_certfile": "server.pem", "ssl_keyfile": "./server.key"}).ssl_certfile == pair.cert


def test_an_encrypted_key_needs_its_password(locked: Pair) -> None:
    assert http_options(tls(locked, ssl_keyfile_password=PASSWORD)).scheme == "https"
    for password, message in ((None, "is encrypted: give its password"), ("wrong", "is not the password of")):
        with pytest.raises(InvalidOption, match=message):
            http_options(tls(locked, ssl_keyfile_password=password))


def test_a_password_is_never_shown(locked: Pair) -> None:
    options = http_options(tls(locked, ssl_keyfile_password=PASSWORD))
    for shown in (repr(options), str(options.tls), f"{options.tls!r}"):
        assert PASSWORD not in shown
        assert locked.cert in shown
    with pytest.raises(InvalidOption) as caught:
        http_options(tls(locked, ssl_keyfile_password=123454321))
    assert "123454321" not in str(caught.value)


def test_what_is_wrong_with_tls_is_said(pair: Pair, locked: Pair, authority: Authority, tmp_path: Path) -> None:
    text, secret = tmp_path / "text", tmp_path / "secret"
    text.write_text("no PEM")
    missing = str(tmp_path / "missing")
    secret.mkdir()
    cases: list[tuple[dict[str, object], str]] = [
        ({"ssl_certfile": pair.cert}, "http_options has 'ssl_certfile' but no 'ssl_keyfile'."),
        ({"ssl_keyfile": pair.key}, "http_options has 'ssl_keyfile' but no 'ssl_certfile'."),
        ({"ssl_ca_certs": authority.cert}, "http_options has 'ssl_ca_certs' but no 'ssl_certfile' and 'ssl_keyfile'."),
        (tls(Pair(missing, pair.key)), f"{missing} cannot be read: No such file or directory."),
        (tls(Pair(pair.cert, missing)), f"{missing} cannot be read: No such file or directory."),
        (tls(Pair(str(secret), pair.key)), f"{secret} cannot be read: Is a directory."),
        (tls(pair, ssl_ca_certs=missing), f"{missing} cannot be read: No such file or directory."),
        (tls(Pair(str(text), pair.key)), f"{text} holds no certificate in PEM format."),
        (tls(Pair(pair.cert, str(text))), f"{text} holds no private key in PEM format that fits the certificate"),
        (tls(pair, ssl_ca_certs=str(text)), f"{text} holds no certificates in PEM format."),
        (tls(Pair(pair.cert, authority.sign("other").key)), "is not that of the certificate in"),
    ]
    for given, message in cases:
        with pytest.raises(InvalidOption) as caught:
            http_options(given)
        assert message in str(caught.value)


def test_former_options_are_heeded() -> None:
    assert http_options({"location": "HeadOnly", "num_cpus": 0, "middlewares": [], "root_url": "x"}) == HTTPOptions()
    assert http_options(HTTPOptions(location="NoServer")).host is None
    with pytest.raises(InvalidOption, match=r"'http_options.middlewares' was removed: .* app.add_middleware"):
        http_options({"middlewares": [object()]})
    with pytest.raises(InvalidOption, match=r"'http_options\.num_cpus' was removed"):
        http_options({"num_cpus": 1})
    with pytest.raises(InvalidOption, match="proxy_location got 'Elsewhere'"):
        http_options({"location": "Elsewhere"})
