"""Modules, files, builders, scripts with and without a guard, interactive sessions, reload."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.system.serving import Place, get
from tests.waiting import wait_until_sync

SCRIPT = """
    import salver as serve

    @serve.deployment
    class Adder:
        def __init__(self, increment): self.increment = increment
        def add(self, number): return number + self.increment
        def __call__(self): return "added"

    app = Adder.bind(3)
"""

USE = """
serve.start(http_options={"port": 0})
handle = serve.run(app, name="mine")
print("sum", handle.add.remote(4).result())
print("status", serve.status().applications["mine"].status)
"""


def test_a_module_in_a_package_runs(place: Place) -> None:
    (place.path / "pkg").mkdir()
    place.write("pkg/__init__.py", "")
    place.write("pkg/service.py", SCRIPT)
    with place.run("pkg.service:app") as run:
        assert get(run.url()).text == "added"


def test_a_file_runs_from_another_directory(place: Place, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    place.write("sub/service.py", SCRIPT)
    place.write("sub/sibling.py", "")
    with place.run(str(tmp_path / "sub" / "service.py") + ":app") as run:
        assert get(run.url()).text == "added"


def test_an_app_dir_is_looked_in(place: Place, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    place.write("sub/service.py", SCRIPT)
    with place.run("service:app", "--app-dir", "sub") as run:
        assert get(run.url()).text == "added"


def test_a_builder_gets_its_arguments(place: Place) -> None:
    place.write(
        "build.py",
        """
        import salver as serve
        from pydantic import BaseModel

        class Arguments(BaseModel):
            number: int

        @serve.deployment
        class Holds:
            def __init__(self, value): self.value = value
            def __call__(self): return self.value

        def plain(args): return Holds.bind(args)
        def typed(args: Arguments): return Holds.bind({"doubled": args.number * 2})
        """,
    )
    with place.run("build:plain", "a=1", "b=x=y") as run:
        assert get(run.url()).json() == {"a": "1", "b": "x=y"}
    with place.run("build:typed", "number=21") as run:
        assert get(run.url()).json() == {"doubled": 42}
    with place.run("build:typed", "number=many") as run:
        assert run.exit_code() == 1
        assert "number" in run.output


def test_environment_variables_and_a_working_directory_reach_the_replicas(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    place.write(
        "where.py",
        """
        import os
        import salver as serve

        @serve.deployment
        def where(): return [os.environ.get("COLOUR"), os.getcwd(), os.environ["OMP_NUM_THREADS"]]

        app = where.options(ray_actor_options={"num_cpus": 2}).bind()
        """,
    )
    env = '{"env_vars": {"COLOUR": "red"}}'
    with place.run("where:app", "--runtime-env-json", env, "--working-dir", "elsewhere") as run:
        assert get(run.url()).json() == ["red", str(tmp_path / "elsewhere"), "2"]


@pytest.mark.parametrize("guarded", [True, False], ids=["with a guard", "without"])
def test_a_script_runs_by_itself_and_under_salver_run(place: Place, guarded: bool) -> None:
    def script(use: str) -> str:
        body = f'if __name__ == "__main__":\n{textwrap.indent(use, "    ")}' if guarded else use
        return f"{textwrap.dedent(SCRIPT)}\n{body}\n"

    (place.path / "script.py").write_text(script(USE))
    with place.start("script.py") as run:
        assert run.exit_code() == 0, run.output
        assert "sum 7" in run.output
        assert "status RUNNING" in run.output
        assert "Traceback" not in run.output
    assert place.leftovers() == []
    (place.path / "script.py").write_text(script("serve.run(app)"))
    with place.run("script.py:app") as run:
        assert get(run.url()).text == "added"


def test_an_interactive_session_can_define_classes_and_run_them(place: Place) -> None:
    with place.start("-i", "-q", stdin=subprocess.PIPE) as run:
        stdin = run.process.stdin
        assert stdin is not None
        # An interpreter wants an empty line after a class, and none inside.
        cell = textwrap.dedent(SCRIPT).replace("\n\napp", "\n\n\napp")
        stdin.write(f"{cell}\n{USE}\nprint('replica of', handle.add.remote(1).result())\n")
        stdin.flush()
        run.wait_for("replica of 4")
        stdin.close()
        assert run.exit_code() == 0
        assert "sum 7" in run.output
    assert place.leftovers() == []


def test_top_level_await_in_a_running_loop_works(place: Place) -> None:
    place.write(
        "loop.py",
        """
        import asyncio
        import salver as serve

        @serve.deployment
        class Double:
            async def __call__(self, x): return 2 * x

        async def main():
            serve.start(http_options={"host": None})
            handle = serve.run(Double.bind(), route_prefix=None)
            print("awaited", await handle.remote(21))
            print(await asyncio.gather(*[handle.remote(x) for x in range(3)]))
            try:
                handle.remote(1).result()
            except RuntimeError as error:
                print("refused:", error)

        asyncio.run(main())
        """,
    )
    with place.start("loop.py") as run:
        assert run.exit_code() == 0, run.output
        assert "awaited 42" in run.output
        assert "[0, 2, 4]" in run.output
        assert "refused: Sync methods should not be called" in run.output


def test_code_with_an_import_path_is_imported_once_and_never_pickled(place: Place) -> None:
    place.write(
        "counted.py",
        """
        import os
        import salver as serve
        with open("imports", "a") as file: file.write(f"{os.getpid()}\\n")

        @serve.deployment(num_replicas=3)
        class Model:
            def __call__(self): return "model"
            def __reduce__(self): raise AssertionError("pickled")

        app = Model.bind()
        """,
    )
    with place.run("counted:app") as run:
        assert get(run.url()).text == "model"
        assert len((place.path / "imports").read_text().split()) == 1


def test_a_module_that_starts_threads_runs_and_says_so_once(place: Place) -> None:
    place.write(
        "threads.py",
        """
        import threading, time
        import salver as serve
        threading.Thread(target=time.sleep, args=(1000,), daemon=True, name="mine").start()

        @serve.deployment(num_replicas=2)
        class Model:
            def __call__(self): return "model"

        app = Model.bind()
        """,
    )
    with place.run("threads:app") as run:
        assert get(run.url()).text == "model"
        assert run.output.count("importing it started threads (mine)") == 1


def test_reload_serves_the_changed_code_and_survives_a_broken_one(place: Place) -> None:
    code = """
        import salver as serve

        @serve.deployment
        def version(): return "{}"

        app = version.bind()
    """
    place.write("changing.py", code.format("one"))
    with place.run("changing:app", "--reload") as run:
        url = run.url()
        assert get(url).text == "one"
        place.write("changing.py", code.format("two"))
        wait_until_sync(lambda: get(url).text == "two", within_s=15, what="the second version")
        place.write("changing.py", "syntax error")
        run.wait_for("SyntaxError", 15)
        assert get(url).text == "two"
        place.write("changing.py", code.format("three"))
        wait_until_sync(lambda: get(url).text == "three", within_s=15, what="the third version")
        run.signal(signal.SIGINT)
        assert run.exit_code() == 0


def test_output_is_prefixed_with_deployment_and_replica(place: Place) -> None:
    place.write(
        "talks.py",
        """
        import os, sys
        import salver as serve

        @serve.deployment
        class Talks:
            def __init__(self): print("constructed")
            def __call__(self):
                print("to stdout"); print("to stderr", file=sys.stderr); os.write(1, b"from C\\n")
                return serve.get_replica_context().replica_tag

        app = Talks.bind()
        """,
    )
    with place.run("talks:app") as run:
        tag = get(run.url()).text
        for text in ("constructed", "to stdout", "to stderr", "from C"):
            assert run.wait_for(text) == f"Talks#{tag} | {text}"


def test_a_terminal_gets_a_live_view(place: Place) -> None:
    place.write("script.py", SCRIPT)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "salver", "run", "script:app", "--port", "0"],
        cwd=place.path,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "SALVER_RUNTIME_DIR": str(place.runtime_dir), "TERM": "xterm"},
    )
    os.close(follower)
    seen = b""
    try:
        os.set_blocking(leader, False)

        def ready() -> bool:
            nonlocal seen
            with contextlib.suppress(BlockingIOError):
                seen += os.read(leader, 65536)
            return b"is ready in" in seen and b"curl http://127.0.0.1:" in seen

        wait_until_sync(ready, within_s=30, what="the ready line")
    finally:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 15
        while process.poll() is None and time.monotonic() < deadline:
            try:
                os.read(leader, 65536)
            except OSError:
                break
        process.wait(15)
        os.close(leader)
    assert process.returncode == 0
    assert place.leftovers() == []
