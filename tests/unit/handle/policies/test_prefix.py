"""What a request begins with, wherever that is in its arguments."""

from typing import Any

import pytest

from salver.handle.outgoing import HttpRequest
from salver.handle.policies.prefix import PrefixAffinity, prefix_in
from salver.schema.application import RouterSpec
from tests.unit.handle.doubles import Net, Request


def body(data: bytes) -> HttpRequest:
    return HttpRequest("POST", "/chat", b"", (), data)


@pytest.mark.parametrize(
    ("args", "kwargs", "argument", "field", "expected"),
    [
        (("hello, world",), {}, 0, "", "hello"),
        ((1, "hello, world"), {}, 1, "", "hello"),
        ((), {"prompt": "hello, world"}, "prompt", "", "hello"),
        (({"prompt": "hello, world"},), {}, 0, "prompt", "hello"),
        (({"messages": [{"content": "hello, world"}]},), {}, 0, "messages.0.content", "hello"),
        ((b"hello, world",), {}, 0, "", "hello"),
        ((123456789,), {}, 0, "", "12345"),
        ((body(b"hello, world"),), {}, 0, "", "hello"),
        ((body(b'{"prompt": "hello, world"}'),), {}, 0, "prompt", "hello"),
        ((body(b""),), {}, 0, "", "/chat"),
        ((body(b"no JSON"),), {}, 0, "prompt", ""),
        (({"text": "x"},), {}, 0, "prompt", ""),
        ((), {}, 0, "", ""),
        ((5,), {}, 0, "a.b", ""),
    ],
)
def test_the_beginning_is_found(
    args: tuple[Any, ...], kwargs: dict[str, Any], argument: int | str, field: str, expected: str
) -> None:
    assert prefix_in(args, kwargs, argument, field, 5) == expected


def test_requests_that_begin_alike_go_to_the_same_replica() -> None:
    net = Net()
    replicas = [net.replica(name, 99) for name in "abcd"]
    router = net.router()
    router.update(net.snapshot(router=RouterSpec(policy="prefix_affinity", kwargs={"prefix_length": 5})))
    for number in range(10):
        router.route(Request(str(number), args=(f"hello {number}",)))
    net.settle()
    assert sorted(len(each.running) for each in replicas) == [0, 0, 0, 10]


def test_arguments_that_cannot_be_read_here_are_no_obstacle() -> None:
    class Unreadable(Request):
        __slots__ = ()

        def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
            raise ModuleNotFoundError("the user's module")

    assert PrefixAffinity()._key_of(Unreadable("r1")) == "r1"
