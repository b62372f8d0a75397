"""The zygote's answers where the system says no."""

import errno
import os
import socket

import pytest

from salver.engine import zygote
from salver.engine.orders import LineClosed, Load, Unborn, decode_report, encoded, receive_order
from salver.schema.application import Preload


def test_a_refused_fork_is_reported_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert zygote._fork(theirs.fileno()) is None
        report = decode_report(ours.recv(1000)[4:])
    assert report == Unborn("the system refused another process: Resource temporarily unavailable")


def test_descriptors_of_half_an_order_are_closed() -> None:
    order = Load(Preload("/", blobs={"a": bytes(100)}), "half")
    length, data = encoded(order)
    ours, theirs = socket.socketpair()
    with theirs:
        with ours, open(os.devnull) as file:
            socket.send_fds(ours, [length], [file.fileno()])
            ours.sendall(data[:50])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(LineClosed):
            receive_order(theirs)
        assert len(os.listdir("/proc/self/fd")) == before
