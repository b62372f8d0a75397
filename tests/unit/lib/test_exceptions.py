"""Exceptions taken apart and put together without their constructors."""

import errno
import json
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from salver.lib.exceptions import packed, pickles_itself, unpacked


class ManyArguments(Exception):
    """Pickle cannot make it again: its constructor takes other arguments than its base's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Slotted(Exception):
    """Keeps its state where `__dict__` does not reach."""

    __slots__ = ("__hidden", "reason")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.__hidden = 1

    def hidden(self) -> int:
        """Return what only methods of this class see."""
        return self.__hidden


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses assignment."""

    code: int


class OwnFile(OSError):
    """An OSError with a constructor of its own."""

    def __init__(self, owner: str) -> None:
        super().__init__(errno.ENOENT, "gone", "file.txt")
        self.owner = owner


def raised_by(work: Callable[[], object]) -> BaseException:
    """Return what a function raises."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - that is what it is for
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        pytest.param(ValueError("no"), ["args"], id="plain"),
        pytest.param(ManyArguments(404, "not here"), ["args", "code"], id="constructor of its own"),
        pytest.param(Slotted("full"), ["reason", "_Slotted__hidden"], id="slots"),
        pytest.param(Frozen(3), ["code"], id="frozen dataclass"),
        pytest.param(OwnFile("me"), ["errno", "strerror", "filename", "owner"], id="OSError with a constructor"),
        pytest.param(FileNotFoundError(2, "no", "a", None, "b"), ["errno", "filename", "filename2"], id="OSError"),
        pytest.param(raised_by(b"\xff".decode), ["encoding", "object", "start", "end", "reason"], id="unicode"),
        pytest.param(raised_by(lambda: __import__("no_such_module")), ["name", "msg"], id="ImportError"),
        pytest.param(raised_by(lambda: compile("a b", "f.py", "exec")), ["filename", "lineno", "text"], id="syntax"),
        pytest.param(subprocess.CalledProcessError(1, "ls"), ["returncode", "cmd"], id="of the standard library"),
        pytest.param(ExceptionGroup("all", [ValueError("one")]), ["message", "exceptions"], id="group"),
        pytest.param(SystemExit(3), ["code"], id="SystemExit"),
    ],
)
def test_an_exception_is_the_same_after_it_was_taken_apart(error: BaseException, attributes: list[str]) -> None:
    again = unpacked(pickle.loads(pickle.dumps(packed(error))))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in attributes:
        expected = getattr(error, name)
        assert repr(getattr(again, name)) == repr(expected)


def test_notes_are_kept() -> None:
    error = ValueError("no")
    error.add_note("look here")
    assert unpacked(packed(error)).__notes__ == ["look here"]


def test_an_exception_can_be_put_together_as_another_type() -> None:
    class Other(ManyArguments):
        pass

    again = unpacked(packed(ManyArguments(404, "not here")), Other)
    assert isinstance(again, Other)
    assert again.code == 404


def test_a_type_that_says_how_it_is_pickled_is_left_to_it() -> None:
    class Careful(Exception):
        def __reduce__(self) -> tuple[type, tuple[()]]:
            return Careful, ()

    assert pickles_itself(Careful())
    assert pickles_itself(raised_by(lambda: json.loads("{")))
    assert not pickles_itself(ManyArguments(1, "x"))
    assert not pickles_itself(OSError(1, "x"))
