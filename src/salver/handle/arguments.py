"""The arguments of a call, and the responses of other calls among them.

A response that is an argument itself becomes its result before the call is made. One that is inside of an argument goes
by reference: the call is made at once, and the result follows when it has come. Either way a result is passed on as it
came, without being unpickled here, and if it lies in shared memory, without being mapped here.
"""

import pickle
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from salver.handle.channel import Channel
from salver.handle.errors import body_of
from salver.handle.references import NotSerializable, finding, giving
from salver.handle.response import DeploymentResponse
from salver.transport.encodings import ENCODINGS, decode, pack_as
from salver.transport.payloads import Arrival, Payload, pack
from salver.transport.wire import ATTACHMENT, BROKEN, AttachmentHead, CallForm

_encode = msgspec.msgpack.Encoder().encode

PICKLED: Final = ("cloudpickle", "cloudpickle")

Responses = list[DeploymentResponse[Any]]


class Attached:
    """Responses of other calls among a call's arguments.

    Args:
        responses: First those that are arguments themselves, then those by reference.
        num_placed: How many are arguments themselves.
        proceed: Called when one of these has come.
    """

    def __init__(self, responses: Responses, num_placed: int, proceed: Callable[[], None]) -> None:
        self._responses = responses
        self._num_placed = num_placed
        self._proceed = proceed
        self._packed: dict[int, bytes | Payload] = {}
        self._unsent: list[int] = []
        self._channel: Channel | None = None
        self._stream = 0

    def again(self, proceed: Callable[[], None]) -> "Attached":
        """Return the same for another call."""
        return Attached(self._responses, self._num_placed, proceed)

    @property
    def responses(self) -> Responses:
        """Return all of them, first those that are arguments themselves."""
        return self._responses

    @property
    def is_complete(self) -> bool:
        """Say whether all that are arguments themselves have come."""
        return all(each.settled for each in self._responses[: self._num_placed])

    @property
    def failed(self) -> DeploymentResponse[Any] | None:
        """Return one of those that are arguments themselves and have failed."""
        return next((each for each in self._responses[: self._num_placed] if each.has_failed), None)

    def watch(self) -> None:
        """Call back, and send what is by reference, when it comes; only on the session's loop."""
        for each in self._responses:
            if not each.settled:
                each.add_waiter(self._advance)

    def drop(self) -> None:
        """The call is not wanted any more, and what is attached to it neither."""
        self._channel = None
        for each in self._responses:
            each.remove_waiter(self._advance)

    def pack_loaded(self) -> None:
        """Pack what was awaited here already, and is here as a value only.

        Raises:
            Exception: Whatever pickling raised.
        """
        for number, response in enumerate(self._responses[: self._num_placed]):
            if response.raw is None:
                self._packed[number] = pack(response.get())

    def write(self, channel: Channel, stream: int) -> None:
        """Send what has come, after the call; the rest follows."""
        self._channel, self._stream = channel, stream
        self._unsent = list(range(len(self._responses)))
        self._send_settled()

    def _advance(self) -> None:
        self._proceed()
        self._send_settled()

    def _send_settled(self) -> None:
        channel = self._channel
        if channel is None or channel.closed:
            return
        unsent, self._unsent = self._unsent, []
        for number in unsent:
            if self._responses[number].settled:
                self._send(channel, number)
            else:
                self._unsent.append(number)

    def _send(self, channel: Channel, number: int) -> None:
        response = self._responses[number]
        raw = response.raw
        failed = response.failed if raw is not None else response.has_failed
        if not failed:
            try:
                self._send_content(channel, number, raw if raw is not None else self._pack(number))
            except Exception as error:  # noqa: BLE001 - the value's own code runs while it is pickled
                self._send_error(channel, number, body_of(error))
        else:
            self._send_error(channel, number, raw if isinstance(raw, bytes) else body_of(response.error()))

    def _send_content(self, channel: Channel, number: int, content: bytes | Payload | Arrival) -> None:
        encoding = "" if number in self._packed else self._responses[number].encoding
        header = _encode(AttachmentHead(number, encoding))
        if isinstance(content, bytes):
            channel.connection.send(ATTACHMENT, self._stream, header, content)
        else:
            channel.large_payloads.send(ATTACHMENT, self._stream, header, content)

    def _send_error(self, channel: Channel, number: int, body: bytes) -> None:
        channel.connection.send(ATTACHMENT, self._stream, _encode(AttachmentHead(number)), body, BROKEN)

    def _pack(self, number: int) -> bytes | Payload:
        packed = self._packed.get(number)
        if packed is None:
            packed = self._packed[number] = pack(self._responses[number].get())
        return packed


def has_responses(values: Iterable[Any]) -> bool:
    """Say whether responses are among the arguments."""
    # Not `any`: its generator costs as much as the rest of a call's beginning.
    for each in values:  # noqa: SIM110
        if isinstance(each, DeploymentResponse):
            return True
    return False


def pack_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], serialization: tuple[str, str]
) -> tuple[bytes | Payload, CallForm, Responses]:
    """Pack arguments with responses among them, or in another way than pickled.

    Args:
        serialization: How arguments and result are encoded, by the names that `handle.options()` takes.

    Raises:
        ValueError: There is no such way.
        Exception: Whatever encoding raised.
    """
    for each in serialization:
        if each not in ENCODINGS:
            raise ValueError(f"There is no serialization '{each}'; choose one of {', '.join(ENCODINGS)}.")
    request_encoding, response_encoding = (ENCODINGS[each] for each in serialization)
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    placed = {place: each for place, each in places if isinstance(each, DeploymentResponse)}
    others = [None if index in placed else each for index, each in enumerate(args)]
    named = {key: None if key in placed else each for key, each in kwargs.items()}
    responses = list(placed.values())
    # In a list of their own: the same response may be an argument and inside of another.
    nested: Responses = []
    with finding(nested):
        body = pack_as((others, named), request_encoding)
    form = CallForm(request_encoding, response_encoding, len(placed) + len(nested), [*placed])
    return body, form, responses + nested


def unpack_arguments(
    body: bytes | Arrival, form: CallForm | None, attached: Attached | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call of this process, for those who choose replicas by them."""
    responses = [] if attached is None else attached.responses
    places: list[int | str] = [] if form is None else form.places
    with giving(responses[len(places) :]):
        args, kwargs = decode(body, "" if form is None else form.request_encoding)
    positional = list(args)
    for place, response in zip(places, responses, strict=False):
        if isinstance(place, int):
            positional[place] = response.get()
        else:
            kwargs[place] = response.get()
    return tuple(positional), kwargs


def unpackable(
    args: tuple[Any, ...], kwargs: dict[str, Any], callee: str, error: Exception, serialization: str
) -> Exception:
    """Return an error of the same kind that says which argument cannot be packed."""
    if isinstance(error, NotSerializable) or type(error) not in (TypeError, AttributeError, pickle.PicklingError):
        return error
    for name, value in (*enumerate(args), *kwargs.items()):
        try:
            pack_as(value, ENCODINGS[serialization])
        except NotSerializable:
            continue
        except Exception:  # noqa: BLE001 - whatever it is, this is the argument
            which = f"'{name}'" if isinstance(name, str) else str(name)
            kind = TypeError if isinstance(error, AttributeError) else type(error)
            return kind(f"Argument {which} ({type(value).__name__}) of a call of {callee} cannot be pickled: {error}")
    return error
