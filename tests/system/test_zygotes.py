"""Users' code in zygotes: what it may do while it is imported, and what is shared and what is not."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from salver.schema.application import Preload
from salver.schema.errors import StartFailed
from tests.agents import short_dir
from tests.system.workshop import WITHIN_S, Workshop, workshop
from tests.waiting import wait_until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    with short_dir() as runtime_dir:
        async with workshop(runtime_dir, tmp_path) as each:
            yield each


# ── What importing may do ───────────────────────────────────────────────────────────────────────────────────────────


async def test_code_is_imported_once_for_many_processes(shop: Workshop) -> None:
    code = shop.write("counted", "print('imported', end='')\ndef show(*_): print(os.getpid())")
    pids = [await shop.output_of(code, "show", f"each-{number}") for number in range(3)]
    assert len({each[0] for each in pids}) == 3
    assert shop.said("import counted") == []
    await shop.engine.release(code)
    await wait_until(lambda: shop.said("import counted"), within_s=WITHIN_S, what="the import's output")
    assert shop.said("import counted") == ["imported"]


async def test_importing_may_print(shop: Workshop) -> None:
    await shop.start(shop.write("chatty", "print('loading weights', flush=True); print('to stderr', file=sys.stderr)"))
    await wait_until(lambda: len(shop.said("import chatty")) > 1, within_s=WITHIN_S, what="two lines")
    assert shop.said("import chatty") == ["loading weights", "to stderr"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('bad weights \\udcff')", "ValueError: bad weights \\udcff"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
    ids=["raises", "exits", "interrupt", "missing dependency", "syntax"],
)
async def test_what_importing_raises_is_told_with_the_users_own_traceback(
    shop: Workshop, source: str, expected: str
) -> None:
    code = shop.write("failing", f"\n{source}\n")
    for _ in range(2):
        with pytest.raises(StartFailed) as caught:
            await shop.start(code)
        text = str(caught.value)
        assert expected in text
        assert "failing.py" in text
        assert "salver/engine" not in text
    await wait_until(lambda: len(shop.zygotes()) == 1, within_s=WITHIN_S, what="the end of the failed zygotes")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("print('last words', flush=True); os._exit(5)", "exited with code 5"),
        ("print('last words', flush=True); os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    ],
    ids=["leaves", "crashes"],
)
async def test_a_death_while_importing_is_explained(shop: Workshop, source: str, expected: str) -> None:
    with pytest.raises(StartFailed) as caught:
        await shop.start(shop.write("deadly", source))
    assert f"The process that imported deadly {expected}" in str(caught.value)
    assert "last words" in str(caught.value)
    await shop.start(shop.write("harmless", ""))


async def test_a_working_directory_that_is_gone_is_told(shop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"Cannot enter the working directory .*/gone"):
        await shop.start(Preload(str(tmp_path / "gone"), modules=("json",)))


async def test_importing_may_replace_standard_output(shop: Workshop) -> None:
    code = shop.write(
        "replaced",
        """
        class Tee:
            def write(self, text): return os.write(1, text.upper().encode())
            def flush(self): raise OSError("no")
        sys.stdout = Tee()
        sys.stderr = None
        def show(*_): print("quiet")
        """,
    )
    assert await shop.output_of(code, "show") == ["QUIET"]


async def test_a_hanging_import_can_be_given_up_and_holds_up_nobody_else(shop: Workshop) -> None:
    code = shop.write("hanging", "print('hangs', flush=True)\nwait()")
    starting = [asyncio.create_task(shop.start(code, name=f"hanging-{n}", resources={"CPU": 1})) for n in range(2)]
    await wait_until(lambda: shop.said("import hanging"), within_s=WITHIN_S, what="the import")
    await shop.start(shop.write("quick", ""), name="quick")
    await shop.engine.signal("hanging-0", kill=True)
    with pytest.raises(StartFailed, match="hanging-0 was stopped while it started"):
        await starting[0]
    await wait_until(lambda: len(shop.zygotes()) == 3, within_s=WITHIN_S, what="only zygotes with their names")
    assert not starting[1].done(), "the other still waits"
    await shop.engine.signal("hanging-1")
    with pytest.raises(StartFailed, match="hanging-1 was stopped while it started"):
        await starting[1]
    await wait_until(lambda: len(shop.zygotes()) == 2, within_s=WITHIN_S, what="the end of the hanging import")
    (node,) = await shop.engine.nodes()
    assert node.free["CPU"] == node.total["CPU"]


async def test_releasing_a_preload_while_it_is_imported_fails_the_start(shop: Workshop) -> None:
    code = shop.write("hanging", "print('hangs', flush=True)\nwait()")
    starting = asyncio.create_task(shop.start(code))
    await wait_until(lambda: shop.said("import hanging"), within_s=WITHIN_S, what="the import")
    await shop.engine.release(code)
    with pytest.raises(StartFailed, match="not wanted any more"):
        await starting


async def test_code_knows_that_it_is_being_imported(shop: Workshop) -> None:
    code = shop.write(
        "aware",
        """
        from salver.lib.loading import loading
        then = loading()
        def show(*_): print(then, loading())
        """,
    )
    assert await shop.output_of(code, "show") == ["aware None"]


# ── What may not be forked ──────────────────────────────────────────────────────────────────────────────────────────

UNFORKABLE = {
    "threads (pump)": "import threading; threading.Thread(None, time.sleep, 'pump', (1000,), daemon=True).start()",
    "native thread": "import _thread; _thread.start_new_thread(time.sleep, (1000,))",
    "opened a socket": "import socket; kept = socket.socketpair()",
    "made an event loop": "import asyncio; kept = asyncio.new_event_loop()",
    "started processes": "import subprocess; kept = subprocess.Popen(['sleep', '1000'])",
}


@pytest.mark.parametrize("why", UNFORKABLE, ids=lambda why: why.replace(" ", "-"))
async def test_what_must_not_be_forked_is_imported_anew_and_said_once(shop: Workshop, why: str) -> None:
    code = shop.write("busy", UNFORKABLE[why] + "\nborn = os.getpid()\ndef show(*_): print(born == os.getpid())")
    names = [f"each-{number}" for number in range(3)]
    assert await asyncio.gather(*(shop.output_of(code, "show", name) for name in names)) == [["True"]] * 3
    assert await shop.output_of(code, "show", "later") == ["True"]
    (notice,) = shop.notices
    assert notice.startswith(f"busy: importing it {'started ' if 'thread' in why else ''}")
    assert why in notice
    await wait_until(lambda: len(shop.zygotes()) == 1, within_s=WITHIN_S, what="the end of all other zygotes")


async def test_threads_that_rest_during_a_fork_do_not_count(shop: Workshop) -> None:
    code = shop.write(
        "numeric",
        """
        import numpy
        numpy.ones((300, 300)) @ numpy.ones((300, 300))
        def show(*_): print((numpy.ones((300, 300)) @ numpy.ones((300, 300)))[0, 0])
        """,
    )
    assert await shop.output_of(code, "show") == ["300.0"]
    assert shop.notices == []


# ── What is shared and what is not ──────────────────────────────────────────────────────────────────────────────────


async def test_each_process_has_its_own_chance(shop: Workshop) -> None:
    code = shop.write(
        "lucky",
        """
        import random, numpy
        def show(*_): print(random.random(), numpy.random.random())
        """,
    )
    drawn = [(await shop.output_of(code, "show", name))[0].split() for name in ("a", "b")]
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


@pytest.mark.parametrize("module", [None, "peeking"], ids=["salvers-own", "users-code"])
async def test_no_descriptor_leaks_into_a_process(shop: Workshop, module: str | None) -> None:
    code = shop.write(
        "peeking",
        """
        def show(*_):
            for fd in sorted(os.listdir("/proc/self/fd"), key=int):
                try: print(os.readlink(f"/proc/self/fd/{fd}").split(":")[0], os.get_inheritable(int(fd)))
                except OSError: pass
        """,
    )
    for number in range(2):
        await shop.start(code, name=f"other-{number}")
    said = await shop.output_of(code, "show", listeners=("http",))
    assert said == ["/dev/null True", "pipe True", "pipe True", f"{shop.agent.path} False", "socket False"]


async def test_a_process_is_named_and_does_not_see_salvers_arguments(shop: Workshop) -> None:
    code = shop.write("named", "def show(*_): print(sys.argv, open('/proc/self/cmdline').read())")
    assert await shop.output_of(code, "show", "app#Digits#1234") == ["['-c'] app#Digits#1234\0"]


async def test_a_large_payload_arrives_whole(shop: Workshop) -> None:
    code = shop.write("heavy", "def show(payload, _): print(len(payload), payload == bytes(len(payload)))")
    assert await shop.output_of(code, "show", payload=bytes(20_000_000)) == ["20000000 True"]


async def test_exit_handlers_run_in_processes_and_not_in_zygotes(shop: Workshop, tmp_path: Path) -> None:
    code = shop.write("tidy", "import atexit; atexit.register(lambda: print('tidied'))\ndef show(*_): pass")
    assert await shop.output_of(code, "show") == ["tidied"]
    await shop.engine.release(code)
    await wait_until(lambda: len(shop.zygotes()) == 1, within_s=WITHIN_S, what="the end of the zygote")
    assert shop.said("import tidy") == []


async def test_what_a_process_started_ends_with_it(shop: Workshop) -> None:
    code = shop.write(
        "parent",
        """
        import subprocess
        def show(*_):
            print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
            wait()
        """,
    )
    await shop.start(code, "show")
    await wait_until(lambda: shop.said("one"), within_s=WITHIN_S, what="the pid of its child")
    child = psutil.Process(int(shop.said("one")[0]))
    await shop.engine.signal("one")
    assert (await shop.exit_of()).signal == signal.SIGTERM
    await wait_until(lambda: not child.is_running(), within_s=WITHIN_S, what="the end of the child")


# ── When zygotes die ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_processes_outlive_their_zygotes_and_others_can_be_started(shop: Workshop) -> None:
    code = shop.write("sturdy", "def show(*_): print('works')")
    await shop.start(code, name="old")
    await wait_until(lambda: len(shop.zygotes()) == 2, within_s=WITHIN_S, what="the process's own name")
    base, code_zygote = shop.zygotes()
    base.kill()
    assert await shop.output_of(code, "show", "without a base") == ["works"]
    code_zygote.kill()
    assert await shop.output_of(code, "show", "without a code zygote") == ["works"]
    for zygote in shop.zygotes():
        zygote.kill()
    assert await shop.output_of(code, "show", "without both") == ["works"]
    assert [each.name for each in shop.exits] == ["without a base", "without a code zygote", "without both"]
    await shop.engine.signal("old")
    assert (await shop.exit_of("old")).signal == signal.SIGTERM


async def test_a_base_zygote_that_died_is_replaced_unasked(shop: Workshop) -> None:
    (base,) = shop.zygotes()
    base.kill()
    await wait_until(lambda: shop.zygotes() not in ([], [base]), within_s=WITHIN_S, what="another zygote")
