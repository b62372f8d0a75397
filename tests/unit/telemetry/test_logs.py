"""The `salver` logger."""

import logging
from collections.abc import Iterator

import pytest

from salver.telemetry.logs import LOGGER_NAME, set_up_logging


@pytest.fixture(autouse=True)
def untouched_logger() -> Iterator[None]:
    logger = logging.getLogger(LOGGER_NAME)
    former = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers[:] = []
    # pytest puts handlers of its own on a logger that does not propagate, at the beginning of each phase of a test.
    logger.propagate = True
    yield
    logger.handlers[:], logger.level, logger.propagate = former


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging().info("ready at %s", "here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("INFO ")
    assert captured.err.endswith(" ready at here\n")


def test_lower_levels_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logger = set_up_logging("WARNING")
    logger.info("quiet")
    logger.warning("loud")
    assert "quiet" not in capsys.readouterr().err


def test_lines_are_written_once_however_often_it_is_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    set_up_logging().info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_a_handler_of_the_users_is_left_alone() -> None:
    handler = logging.NullHandler()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    assert set_up_logging().handlers == [handler]
