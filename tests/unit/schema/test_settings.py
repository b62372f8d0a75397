"""The environment's settings."""

from pathlib import Path

import pytest

from salver.schema.errors import InvalidOption
from salver.schema.settings import inherited_environment, read_settings, replace_environment


def test_the_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_RUNTIME_DIR", "somewhere")
    monkeypatch.setenv("SALVER_LOG_LEVEL", "debug")
    monkeypatch.setenv("SALVER_HTTP_HOST", "::1")
    monkeypatch.setenv("SALVER_LOCAL_TESTING_MODE", "1")
    assert read_settings() == (Path("somewhere"), "DEBUG", "::1", True)


@pytest.mark.parametrize("value", ["", None], ids=["empty", "unset"])
def test_an_unset_variable_has_a_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SALVER_RUNTIME_DIR", "SALVER_LOG_LEVEL"):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "of-the-user")
    settings = read_settings()
    assert settings.log_level == "INFO"
    assert settings.runtime_dir.parent == Path("of-the-user")


def test_an_unknown_log_level_is_answered_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_LOG_LEVEL", "chatty")
    with pytest.raises(InvalidOption, match="SALVER_LOG_LEVEL is 'CHATTY': expected one of DEBUG, INFO"):
        read_settings()


def test_a_switch_is_1_or_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_LOCAL_TESTING_MODE", "yes")
    with pytest.raises(InvalidOption, match="SALVER_LOCAL_TESTING_MODE is 'yes': expected 1 or 0"):
        read_settings()


def test_the_environment_of_a_process_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_LOG_LEVEL", "INFO")
    replace_environment({"SALVER_LOG_LEVEL": "ERROR"})
    assert inherited_environment()["SALVER_LOG_LEVEL"] == "ERROR"
