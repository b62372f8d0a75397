"""Tracebacks for users: their frames, whole; none of Salver's."""

import sys
from pathlib import Path

import pytest

import salver
from salver.lib.importing import import_module
from salver.lib.tracebacks import encodable, user_traceback
from salver.schema.errors import SalverError


def error_of(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """Return what importing a file raises, through Salver's own importing."""
    (tmp_path / "users_module.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any error of the user's
        import_module("users_module", str(tmp_path))
    sys.modules.pop("users_module", None)
    return caught.value


def test_the_users_frames_are_there_and_ours_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = user_traceback(error_of(tmp_path, "def f():\n    raise ValueError('no')\nf()\n", monkeypatch))
    assert "users_module.py" in text
    assert "in f" in text
    assert text.endswith("ValueError: no")
    assert "importing.py" not in text
    assert "importlib" not in text


def test_frames_of_ours_are_left_out_of_causes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = error_of(tmp_path, "raise ValueError('the cause')", monkeypatch)
    effect = RuntimeError("the effect")
    effect.__cause__ = cause
    text = user_traceback(effect)
    assert "the cause" in text
    assert "importing.py" not in text


def test_frames_of_ours_are_left_out_of_groups_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = error_of(tmp_path, "raise ValueError('a part')", monkeypatch)
    text = user_traceback(ExceptionGroup("all", [part]))  # type: ignore[type-var]
    assert "a part" in text
    assert "importing.py" not in text


def test_frames_of_a_directory_whose_name_begins_like_ours_stay() -> None:
    code = compile("raise ValueError('no')", f"{Path(salver.__file__).parent}_demo/main.py", "exec")
    with pytest.raises(ValueError, match="no") as caught:
        exec(code)
    assert "salver_demo/main.py" in user_traceback(caught.value)


def test_an_error_without_frames_of_the_users_keeps_all() -> None:
    assert user_traceback(ValueError("no")) == "ValueError: no"


@pytest.mark.parametrize(
    ("kind", "shows_frames"), [(ValueError, True), (SalverError, False)], ids=["other", "of_salver"]
)
def test_of_an_error_with_frames_of_ours_alone_only_one_that_salver_words_itself_hides_them(
    kind: type[Exception], shows_frames: bool
) -> None:
    code = compile("raise kind('what to do')", f"{Path(salver.__file__).parent}/somewhere.py", "exec")
    try:
        exec(code, {"kind": kind})
    except kind as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this test's own frame
        text = user_traceback(error)
    assert ("somewhere.py" in text) is shows_frames
    assert text.endswith("what to do")


def test_an_error_that_cannot_be_turned_into_text_has_a_traceback_anyway() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "Mute" in user_traceback(Mute())


def test_a_traceback_can_always_be_encoded() -> None:
    assert user_traceback(ValueError("\ud800")).encode().endswith(rb"\ud800")
    assert encodable("é\ud800") == "é\\ud800"


def test_code_that_cannot_be_compiled_is_shown_without_our_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = user_traceback(error_of(tmp_path, "def f(:\n", monkeypatch))
    assert "users_module.py" in text
    assert "importing.py" not in text
    assert "importlib" not in text
