"""Options of the HTTP proxies as users give them, and what processes may know of them."""

import contextlib
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.certificates import PASSWORD, Authority, Pair
from tests.system.serving import Place, alive

APP = """
    import salver as serve
    from starlette.requests import Request

    @serve.deployment
    class Where:
        async def __call__(self, request: Request):
            if request.url.path == "/length": return str(len(await request.body()))
            return str(request.url)

    app = Where.bind()
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def served_over(url: str, context: ssl.SSLContext, **options: object) -> httpx.Response:
    with httpx.Client(verify=context) as client:
        return client.get(url, **options)  # type: ignore[arg-type]


def test_a_run_speaks_https(place: Place, authority: Authority) -> None:
    place.write("where.py", APP)
    pair = authority.sign("server", password=PASSWORD)
    http = (f"ssl_certfile={pair.cert}", f"ssl_keyfile={pair.key}", f"ssl_keyfile_password={PASSWORD}")
    with place.run("where:app", *[part for each in http for part in ("--http", each)]) as run:
        url = run.url()
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(verify=authority.client()) as client:
            assert client.get(url + "/here").text == url + "/here"
            assert client.get(url + "/again").text == url + "/again"
            assert client.post(url + "/length", content=b"x" * 3_000_000).text == "3000000"
        for each in [*run.family(), *run.agents()]:
            assert PASSWORD not in " ".join(each.cmdline())
        assert PASSWORD not in run.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("num_proxies=0", "Error: Option 'http_options.num_proxies' got '0': expected an integer from 1 to 256."),
        ("ssl_certfile=nowhere.pem", "HTTPS needs a certificate and its key"),
        ("num_proxy=2", "Option 'http_options' has no key 'num_proxy'. Did you mean 'num_proxies'?"),
        ("port=1", "Give the port as --port."),
        ("num_proxies", "Invalid HTTP option 'num_proxies', must be of the form '<key>=<val>'."),
    ],
)
def test_what_is_wrong_is_one_line(place: Place, given: str, message: str) -> None:
    place.write("where.py", APP)
    with place.run("where:app", "--http", given) as run:
        assert run.exit_code() == 1
        assert message in run.output
        assert "Traceback" not in run.output
        assert alive(run.family()) == []


def test_a_program_gives_them_to_start(place: Place, authority: Authority) -> None:
    place.write("where.py", APP)
    pair = authority.sign("server")
    place.write(
        "program.py",
        f"""
        import httpx, ssl
        import salver as serve
        from where import app
        serve.start(http_options={{"port": 0, "ssl_certfile": {pair.cert!r}, "ssl_keyfile": {pair.key!r}}})
        serve.run(app)
        """,
    )
    with place.start("program.py") as run:
        assert run.exit_code() == 0, run.output
        assert "Started Serve at https://127.0.0.1:" in run.output


def test_a_renewed_certificate_is_shown_without_a_restart(place: Place, authority: Authority, tmp_path: Path) -> None:
    place.write("where.py", APP)
    shown = Pair(str(tmp_path / "shown.pem"), str(tmp_path / "shown.key"))

    def show(pair: Pair) -> None:
        for source, target in zip(pair, shown, strict=True):
            shutil.copy(source, target)

    show(authority.sign("first"))
    with place.run("where:app", *arguments_for(shown)) as run:
        url = run.url()
        with httpx.Client(verify=authority.client()) as early:
            assert early.get(url).status_code == 200
            show(authority.sign("second"))
            run.wait_for(f"The certificate in {shown.cert} was renewed.")
            assert certified(url, authority) == "second"
            assert early.get(url).status_code == 200
        Path(shown.key).write_text("broken")
        run.wait_for("The renewed certificate is not used, the old one serves on:")
        assert certified(url, authority) == "second"


def test_clients_must_show_a_certificate_where_that_is_wanted(place: Place, authority: Authority) -> None:
    place.write("where.py", APP)
    asking = ("--http", f"ssl_ca_certs={authority.cert}")
    with place.run("where:app", *arguments_for(authority.sign("server")), *asking) as run:
        url = run.url()
        assert served_over(url, authority.client(authority.sign("client"))).status_code == 200
        with pytest.raises(httpx.TransportError):
            served_over(url, authority.client())


def test_whoever_speaks_plain_http_or_nothing_is_closed(place: Place, authority: Authority) -> None:
    place.write("where.py", APP)
    with place.run("where:app", *arguments_for(authority.sign("server"))) as run:
        parts = urlsplit(run.url())
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert not sock.recv(1000).startswith(b"HTTP")
        assert served_over(run.url(), authority.client()).status_code == 200
        assert "Traceback" not in run.output


def test_a_refused_request_is_answered_over_https_too(place: Place, authority: Authority) -> None:
    place.write("where.py", APP)
    http = ("--http", "max_request_body_bytes=10")
    with (
        place.run("where:app", *arguments_for(authority.sign("server")), *http) as run,
        httpx.Client(verify=authority.client()) as client,
    ):
        assert client.get(run.url(), headers={"x-long": "x" * 40_000}).status_code == 431
        assert client.post(run.url(), content=b"x" * 11).status_code == 413
        assert client.post(run.url() + "/length", content=b"x" * 10).text == "10"


def test_an_application_says_how_long_bodies_may_be(place: Place) -> None:
    place.write("where.py", APP.replace("@serve.deployment", "@serve.deployment(max_request_body_bytes=5)"))
    with place.run("where:app", "--http", "max_request_body_bytes=1") as run:
        assert httpx.post(run.url() + "/length", content=b"12345").text == "5"
        refused = httpx.post(run.url() + "/length", content=b"123456")
        assert (refused.status_code, refused.text) == (413, "Content Too Large: at most 5 bytes are allowed.")


def certified(url: str, authority: Authority) -> str:
    """Return whose certificate is shown to a newcomer."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=20) as sock,
        authority.client().wrap_socket(sock, server_hostname=parts.hostname) as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate is not None
        subject: Any = certificate["subject"]
        return str(subject[0][0][1])


def arguments_for(pair: Pair) -> tuple[str, ...]:
    """Return the arguments of `salver run` for a certificate."""
    return ("--http", f"ssl_certfile={pair.cert}", "--http", f"ssl_keyfile={pair.key}")
