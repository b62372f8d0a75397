"""`salver run`: from the command line to what is to be run; nothing is started."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from salver.api.instance import Declared
from salver.cli import run as run_module
from salver.cli.main import main
from salver.cli.run import Order
from salver.schema.http import HTTPOptions

Run = Callable[..., Order]


@pytest.fixture(autouse=True)
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Order]:
    """Collect what would be run; commands run in an empty directory."""
    collected: list[Order] = []

    class FakeRun:
        def __init__(self, order: Order) -> None:
            collected.append(order)

        async def until_stopped(self) -> int:
            return 0

    monkeypatch.setattr(run_module, "_Run", FakeRun)
    monkeypatch.delenv("SALVER_HTTP_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    return collected


def invoke(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["run", *arguments])


@pytest.fixture
def ordered(orders: list[Order]) -> Run:
    """Return the order that arguments make."""

    def order(*arguments: str) -> Order:
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        return orders[-1]

    return order


def refused(*arguments: str) -> str:
    """Return the message for arguments that are wrong."""
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), "a traceback would be shown"
    return " ".join(result.output.split())


# ── What is run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_import_path_is_all_that_is_needed(ordered: Run, tmp_path: Path) -> None:
    order = ordered("main:app")
    assert (order.import_path, order.arguments, order.name, order.route_prefix) == ("main:app", {}, "default", "/")
    assert order.http == HTTPOptions(host="127.0.0.1", port=8000)
    assert order.machine == Declared()
    assert order.watch is None
    here = str(tmp_path)
    assert (order.preload.working_dir, order.preload.search_path) == (here, (here,))
    assert (order.preload.modules, order.preload.env) == (("main",), {})


def test_arguments_are_keys_and_values(ordered: Run) -> None:
    order = ordered("main:app", "size=small", "url=http://x?a=b", "size=large")
    assert order.arguments == {"size": "large", "url": "http://x?a=b"}


def test_options_of_the_application_and_the_proxy_are_taken(ordered: Run) -> None:
    order = ordered("main:app", "--name", "shop", "--route-prefix", "/s", "--host", "::1", "-p", "0")
    assert (order.name, order.route_prefix) == ("shop", "/s")
    assert order.http == HTTPOptions(host="::1", port=0)


def test_the_environment_says_where_to_listen_unless_an_option_does(
    ordered: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_HTTP_HOST", "0.0.0.0")
    assert ordered("main:app").http.host == "0.0.0.0"
    assert ordered("main:app", "--host", "127.0.0.1").http.host == "127.0.0.1"


def test_the_machine_can_be_declared(ordered: Run) -> None:
    order = ordered("main:app", "--num-cpus", "1.5", "--num-gpus", "2", "--strict-cpus")
    assert order.machine == Declared(num_cpus=1.5, num_gpus=2.0, strict_cpus=True)


# ── Where it is found ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_imported_from_its_own_directory_first(ordered: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "main.py").touch()
    order = ordered("deep/main.py:app")
    assert order.preload.modules == ("main",)
    assert order.preload.search_path == (str(tmp_path / "deep"), str(tmp_path))
    assert order.preload.working_dir == str(tmp_path)


def test_modules_are_imported_from_the_app_dir_and_run_in_the_working_dir(ordered: Run, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "data").mkdir()
    order = ordered("main:app", "-d", "code", "--working-dir", "data")
    assert order.preload.search_path == (str(tmp_path / "code"), str(tmp_path / "data"))
    assert order.preload.working_dir == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "watched"),
    [
        pytest.param(("main:app", "--reload"), ".", id="module"),
        pytest.param(("main:app", "-r", "-d", "code"), "code", id="app dir"),
        pytest.param(("code/main.py:app", "-r"), "code", id="file"),
    ],
)
def test_reload_watches_where_the_module_is_found(
    arguments: Sequence[str], watched: str, ordered: Run, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").touch()
    assert ordered(*arguments).watch == tmp_path / watched


# ── Runtime environment ─────────────────────────────────────────────────────────────────────────────────────────────

ENV = {"env_vars": {"A": "text", "B": 2, "C": True}, "working_dir": "data"}
FILES = {
    "env.json": json.dumps(ENV),
    "env.yaml": "env_vars: {A: text, B: 2, C: true}\nworking_dir: data\n",
    "other": "env_vars: {A: text, B: 2, C: true}\nworking_dir: data\n",
}


@pytest.mark.parametrize("way", ["env.json", "env.yaml", "other", "option"])
def test_a_runtime_environment_comes_from_a_file_or_an_option(way: str, ordered: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["--runtime-env-json", json.dumps(ENV)]
    if way != "option":
        (tmp_path / way).write_text(FILES[way])
        arguments = ["--runtime-env", way]
    order = ordered("main:app", *arguments)
    assert order.preload.env == {"A": "text", "B": "2", "C": "True"}
    assert order.preload.working_dir == str(tmp_path / "data")


def test_the_option_for_the_working_dir_counts_more_than_the_runtime_environment(ordered: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    order = ordered("main:app", "--runtime-env-json", '{"working_dir": "nowhere"}', "--working-dir", "data")
    assert order.preload.working_dir == str(tmp_path / "data")


@pytest.mark.parametrize("text", ["{}", '{"env_vars": null, "working_dir": null}', '{"env_vars": {}}'])
def test_an_empty_runtime_environment_changes_nothing(text: str, ordered: Run, tmp_path: Path) -> None:
    order = ordered("main:app", "--runtime-env-json", text)
    assert (order.preload.env, order.preload.working_dir) == ({}, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "--runtime-env-json cannot be read", id="no JSON"),
        pytest.param("[]", "--runtime-env-json holds []; expected a mapping", id="no mapping"),
        pytest.param('{"pip": []}', "has the key 'pip'; on this machine 'env_vars' and", id="other key"),
        pytest.param('{"env_vars": ["A"]}', "has ['A'] for 'env_vars'; expected a mapping of names", id="list"),
        pytest.param('{"env_vars": {"A": null}}', "has {'A': None} for 'env_vars'", id="None"),
        pytest.param('{"env_vars": {"A": {}}}', "for 'env_vars'; expected a mapping", id="nested"),
        pytest.param('{"working_dir": 7}', "has 7 for 'working_dir'; expected a path", id="no path"),
        pytest.param('{"working_dir": "nowhere"}', "is not a directory", id="no directory"),
    ],
)
def test_a_wrong_runtime_environment_is_one_clear_message(text: str, message: str) -> None:
    assert message in refused("main:app", "--runtime-env-json", text)


@pytest.mark.parametrize(
    ("name", "content"),
    [("env.yaml", b"a: [b"), ("env.json", b"{"), ("env.yaml", b"\xff\xfe\x00"), ("env.json", b"\xff")],
    ids=["YAML", "JSON", "YAML's bytes", "JSON's bytes"],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"{name} cannot be read: " in refused("main:app", "--runtime-env", name)


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("main",), "'main' is not an import path; expected 'module:attribute'", id="no attribute"),
        pytest.param(("gone.py:app",), "File 'gone.py' does not exist", id="no file"),
        pytest.param(("main:app", "small"), "argument 'small', must be of the form '<key>=<val>'", id="no value"),
        pytest.param(("main:app", "=small"), "argument '=small', must be of the form", id="no key"),
        pytest.param(("main:app", "size="), "argument 'size=', must be of the form", id="empty value"),
        pytest.param(("main:app", "--name", ""), "Application name must a non-empty string", id="no name"),
        pytest.param(("main:app", "--route-prefix", "x"), "must start with a forward slash", id="prefix"),
        pytest.param(("main:app", "--route-prefix", "/x/"), "may not end with a trailing '/'", id="prefix's end"),
        pytest.param(("main:app", "--port", "70000"), "http_options.port", id="port too high"),
        pytest.param(("main:app", "--port", "http"), "'http' is not a valid integer", id="port"),
        pytest.param(("main:app", "--app-dir", "gone"), "--app-dir 'gone' is not a directory", id="app dir"),
        pytest.param(("main:app", "--working-dir", "gone"), "gone' is not a directory", id="working dir"),
        pytest.param(("main:app", "--num-cpus", "-1"), "'num_cpus' got -1.0: expected a number >= 0", id="CPUs"),
        pytest.param(("main:app", "--num-gpus", "few"), "'few' is not a valid float", id="GPUs"),
        pytest.param(("main:app", "--runtime-env", "gone"), "File 'gone' does not exist", id="no environment"),
        pytest.param((), "Missing argument 'IMPORT_PATH'", id="nothing"),
    ],
)
def test_wrong_input_is_one_clear_message(arguments: Sequence[str], message: str, orders: list[Order]) -> None:
    assert message in refused(*arguments)
    assert orders == []


def test_a_runtime_environment_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text("{}")
    message = refused("main:app", "--runtime-env", "env.json", "--runtime-env-json", "{}")
    assert "Give --runtime-env or --runtime-env-json, not both." in message


def test_a_wrong_setting_of_the_environment_is_one_clear_message(
    monkeypatch: pytest.MonkeyPatch, orders: list[Order]
) -> None:
    monkeypatch.setenv("SALVER_LOG_LEVEL", "LOUD")
    assert "SALVER_LOG_LEVEL is 'LOUD'" in refused("main:app")
    assert orders == []


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"]], ids=" ".join)
def test_help_shows_examples(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert "salver run main:app" in result.output


def test_the_exit_code_of_the_run_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, order: Any) -> None:
            """Take anything."""

        async def until_stopped(self) -> int:
            return 3

    monkeypatch.setattr(run_module, "_Run", Failing)
    assert invoke("main:app").exit_code == 3
