"""The `salver` logger: one line per event on standard error."""

import logging
import sys

LOGGER_NAME = "salver"
_FORMAT = "%(levelname)s %(asctime)s %(message)s"


def set_up_logging(level: str = "INFO") -> logging.Logger:
    """Send the `salver` logger's lines to standard error, unless the user has given it a handler already.

    Args:
        level: Name of the lowest level that is shown.
    """
    logger = logging.getLogger(LOGGER_NAME)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)
    return logger
