"""Shared memory of other processes, mapped here: what is read there is theirs, what is written stays here.

A mapping is private: the first write to a page makes a copy of it, which no other process sees. So user code may write
to what it was sent, as it may where nothing is shared. Making a mapping costs little; having all of its pages mapped
costs as much as copying them, so one in which nothing was written is kept for the next payload in the same segment.
"""

import ctypes
import fcntl
import mmap
import os
import stat
import struct
import threading
from collections.abc import Callable

from salver.schema.errors import ProtocolError
from salver.transport.wire import SharedMemory

# The ioctl PAGEMAP_SCAN of Linux 6.7 and its categories of pages.
_PAGEMAP_SCAN = 0xC0606610
_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 1 << 2, 1 << 3, 1 << 4
_ARGUMENT = struct.Struct("<12Q")
_REGION_SIZE = 24


_libc = ctypes.CDLL(None, use_errno=True)
_map = _libc.mmap
_map.restype = ctypes.c_void_p
_map.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_unmap = _libc.munmap
_unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value

LentMemory = ctypes.Array[ctypes.c_ubyte]


MAX_OPEN_FILES = 64
"""So many segments are held open unmapped; more are mapped at once, which needs no file descriptor."""


class Mapping:
    """A segment of another process: held by its file at first, and mapped privately where its bytes are wanted.

    While it is held it is there, even if its owner dies. Not Python's `mmap`, which keeps a file descriptor for as long
    as it lives.

    Raises:
        OSError: It cannot be opened: the process is gone, or out of reach.
        ProtocolError: It is not what its owner says.
    """

    _address: int | None = None
    _file: int = -1
    _lent_on = False
    _num_open_files = 0
    _lock = threading.RLock()

    def __init__(self, where: SharedMemory, size_bytes: int) -> None:
        self.segment = where.segment
        self.size_bytes = size_bytes
        self._where = where
        self._file = _open(where, size_bytes)
        Mapping._num_open_files += 1
        if Mapping._num_open_files > MAX_OPEN_FILES:
            self._map()

    @property
    def is_passed_on(self) -> bool:
        """Say whether it is a third process's, whose segments come and go without our hearing of it."""
        return self._where.passed_on

    def lend(self) -> LentMemory:
        """Return an object that has this memory, and can be watched: all views of it hold it.

        Raises:
            OSError: There is no memory to map it.
        """
        if self._address is None:
            self._map()
        assert self._address is not None
        memory = (ctypes.c_ubyte * self.size_bytes).from_address(self._address)
        memory.mapping = self  # type: ignore[attr-defined]  # The memory is there for as long as this is.
        return memory

    def pass_on(self) -> SharedMemory:
        """Say where others find it for as long as this exists, whatever becomes of its owner.

        Raises:
            OSError: Its owner has it no more, and here it is only mapped.
        """
        with self._lock:
            if self._file < 0:
                self._file = _open(self._where, self.size_bytes)
                Mapping._num_open_files += 1
            self._lent_on = True
            return SharedMemory(0, self.segment, os.getpid(), self._file, self._where.inode, passed_on=True)

    def rest(self) -> None:
        """Nobody has it now; it is kept for the next payload in its segment."""
        with self._lock:
            self._lent_on = False
            self._close_file()

    def read(self, start: int, size_bytes: int) -> bytes:
        """Return some of its bytes."""
        if self._file >= 0:
            return os.pread(self._file, size_bytes, start)
        assert self._address is not None
        return ctypes.string_at(self._address + start, size_bytes)

    def _map(self) -> None:
        with self._lock:
            if self._address is not None:
                return
            access = mmap.PROT_READ | mmap.PROT_WRITE
            address = _map(None, self.size_bytes, access, mmap.MAP_PRIVATE, self._file, 0)
            if address == _FAILED:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            self._address = address
            if not self._lent_on:
                self._close_file()

    def _close_file(self, close: Callable[[int], None] = os.close) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            Mapping._num_open_files -= 1
            close(file)

    def is_untouched(self) -> bool:
        """Say whether nothing was written here, so that it still shows what its owner writes; if in doubt, say no."""
        if self._address is None:
            return False
        region = ctypes.create_string_buffer(_REGION_SIZE)
        end = self._address + self.size_bytes + -self.size_bytes % mmap.PAGESIZE
        # Find one page that is in memory or swapped out and does not belong to the file.
        wanted = (_IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_FILE)
        argument = _ARGUMENT.pack(_ARGUMENT.size, 0, self._address, end, 0, ctypes.addressof(region), 1, 1, *wanted)
        try:
            file = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            found: int = fcntl.ioctl(file, _PAGEMAP_SCAN, bytearray(argument))
            return found == 0
        except OSError:
            return False
        finally:
            os.close(file)

    def __del__(self, unmap: Callable[[int, int], int] = _unmap) -> None:
        self._close_file()
        if self._address is not None:
            unmap(self._address, self.size_bytes)


def _open(where: SharedMemory, size_bytes: int) -> int:
    path = f"/proc/{where.process_id}/fd/{where.file}"
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        _check(file, where, size_bytes)
    except BaseException:
        os.close(file)
        raise
    return file


def _check(file: int, where: SharedMemory, size_bytes: int) -> None:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_ino != where.inode:
        # Another process has that number here, or the owner has closed the segment.
        raise FileNotFoundError(f"segment {where.segment} of process {where.process_id} is not there")
    if found.st_uid != os.geteuid() or size_bytes > found.st_size:
        raise ProtocolError(f"segment {where.segment} of process {where.process_id} is not what it is said to be")
    if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise ProtocolError(f"segment {where.segment} of process {where.process_id} may shrink")
