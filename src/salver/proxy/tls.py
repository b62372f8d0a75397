"""The certificate that a proxy shows, exchanged for a renewed one while it serves."""

import logging
import os
import ssl

from salver.lib.tls import BadTlsFile, TlsFiles, server_context
from salver.telemetry.logs import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """TLS out of files, which are read again when they change.

    A renewed certificate serves handshakes from then on; connections keep what they began with. Files are read when
    two looks in a row have found the same change: half of a renewal is none.

    Args:
        files: Where the certificate is.

    Attributes:
        context: For the listening socket; it stays the same.

    Raises:
        BadTlsFile: A file cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._loaded = self._seen = _stamp(files)
        self._current = self.context = server_context(files)

    def look(self) -> None:
        """Take the files as they are now, if they have changed; what cannot be used leaves the old certificate."""
        seen = _stamp(self._files)
        settled, self._seen = seen == self._seen, seen
        if seen == self._loaded or not settled:
            return
        self._loaded = seen
        try:
            self._current = server_context(self._files)
        except BadTlsFile as error:
            logger.error("The renewed certificate is not used, the old one serves on: %s", error)
            return
        # Not loaded into the context in use: a file that changes meanwhile would leave that without a key.
        self.context.sni_callback = self._choose
        logger.info("The certificate in %s was renewed.", self._files.certfile)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


def _stamp(files: TlsFiles) -> Stamp:
    return tuple(_stamp_of(each) for each in files.paths)


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
