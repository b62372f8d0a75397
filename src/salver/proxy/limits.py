"""What a client may make the proxy hold, and for how long."""

from typing import Final

MAX_TARGET_SIZE_BYTES: Final = 16 * 1024
MAX_HEADERS_SIZE_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
MAX_BODY_SIZE_BYTES: Final = 256 * 1024 * 1024
MAX_PIPELINED: Final = 16
MAX_REQUEST_ID_SIZE_BYTES: Final = 256
REQUEST_TIMEOUT_S: Final = 60.0
"""How long a client may take to send one request: slow ones hold a connection, no more."""
LINGER_S: Final = 2.0
"""How long a client whose request was refused may go on sending, so that it reads why."""
SWEEP_PERIOD_S: Final = 0.25
GRANT_SIZE_BYTES: Final = 128 * 1024
"""A replica is told in steps of this size that a client keeps up; far less than it may send unasked."""
