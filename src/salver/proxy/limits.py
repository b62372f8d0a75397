"""What a client may make the proxy hold, and for how long."""

from typing import Final

MAX_TARGET_SIZE_BYTES: Final = 12 * 1024
"""A path goes to the replica twice, decoded and as it was sent, in one frame's head with all headers: 64 KiB in all."""
MAX_HEADERS_SIZE_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
UPLOAD_WINDOW_SIZE_BYTES: Final = 256 * 1024
"""So much of a body may be on its way to a replica that has not taken it; shorter ones are sent in one piece."""
MAX_PIPELINED: Final = 16
MAX_REQUEST_ID_SIZE_BYTES: Final = 256
MIN_UPLOAD_RATE_BYTES_PER_S: Final = 1024
"""A client that goes on sending at less than this is cut off: it holds a place at a replica."""
MAX_TURNED_AWAY: Final = 64
"""So many clients above the limit of connections read why they are turned away; further ones are cut off."""
RESERVED_FILES: Final = 512
"""What a proxy keeps of its open files for replicas, clients that are turned away, and TLS handshakes."""
HANDSHAKE_TIMEOUT_S: Final = 10.0
FLUSH_TIMEOUT_S: Final = 24 * 3600.0
"""How long the rest of an answer may take over TLS, after which the connection ends; who reads nothing is cut off long
before."""
CERTIFICATE_PERIOD_S: Final = 2
"""How often the files of the certificate are looked at."""
STALL_TIMEOUT_S: Final = 30.0
"""How long a client may read nothing of what it is sent."""
QUIET_S: Final = 0.5
"""When a proxy drains: a client that was silent for so long is unlikely to be sending a request just now."""
LINGER_S: Final = 2.0
"""How long a client whose request was refused may go on sending, so that it reads why."""
SWEEP_PERIOD_S: Final = 0.25
GRANT_SIZE_BYTES: Final = 128 * 1024
"""A replica is told in steps of this size that a client keeps up; far less than it may send unasked."""

# HTTP/2
MAX_STREAMS: Final = 128
"""Requests of one connection at once."""
MAX_CONNECTION_WINDOW_SIZE_BYTES: Final = 16 * 1024 * 1024
"""So much may be on its way on all streams of a connection together; one that stalls must not stop the others."""
MAX_RESETS_PER_SWEEP: Final = 256
"""A client that gives up more requests than this between two sweeps is shown the door."""
MAX_MESSAGE_SIZE_BYTES: Final = 16 * 1024 * 1024
"""How long a message of a WebSocket may be, put together and unpacked."""
MAX_DEFLATED_SIZE_BYTES: Final = 256 * 1024
"""Longer messages of a WebSocket are sent as they are: compressing them would hold up all other clients."""
SOCKET_SLICE_SIZE_BYTES: Final = 16 * 1024
"""So much of a compressing client's bytes is taken at once: each may unpack to a thousand times its size."""
MAX_OWED_PONGS: Final = 64
"""A client that reads nothing may send so many pings before nothing more is read from it."""
PING_PERIOD_S: Final = 20.0
"""A WebSocket's client that was silent for so long is asked for a sign of life."""
PING_TIMEOUT_S: Final = 20.0
CLOSE_TIMEOUT_S: Final = 5.0
"""How long a WebSocket's client may take to answer that the connection closes."""
