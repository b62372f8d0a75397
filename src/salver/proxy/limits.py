"""What a client may make the proxy hold, and for how long."""

from typing import Final

MAX_TARGET_SIZE_BYTES: Final = 16 * 1024
MAX_HEADERS_SIZE_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
MAX_BODY_SIZE_BYTES: Final = 256 * 1024 * 1024
MAX_PIPELINED: Final = 16
REQUEST_TIMEOUT_S: Final = 60.0
"""How long a client may take to send one request: slow ones hold a connection, no more."""
SWEEP_PERIOD_S: Final = 0.25
MAX_REQUEST_ID_SIZE_BYTES: Final = 256
