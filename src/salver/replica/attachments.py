"""Results of other calls that come with a call: its arguments, or responses inside of them."""

import asyncio
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from salver.handle.references import giving
from salver.handle.response import ReferencedResponse
from salver.schema.errors import Disconnected, ProtocolError
from salver.transport.encodings import decode
from salver.transport.payloads import Arrival
from salver.transport.wire import AttachmentHead, CallForm

_decode_head = msgspec.msgpack.Decoder(AttachmentHead).decode


class _Attachment(NamedTuple):
    head: AttachmentHead
    raw: bytes | Arrival
    failed: bool


class Attachments:
    """What one caller attaches to its calls.

    A response that user code keeps is settled even after its call was answered; one that it dropped, never.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._early: dict[int, list[_Attachment]] = {}
        self._awaited: WeakValueDictionary[tuple[int, int], ReferencedResponse[Any]] = WeakValueDictionary()

    def on_frame(self, stream: int, header: bytes, raw: bytes | Arrival, *, failed: bool, is_early: bool) -> None:
        """Take what came.

        Args:
            is_early: The call has not asked for it yet.
        """
        try:
            attachment = _Attachment(_decode_head(header), raw, failed)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"an ATTACHMENT frame's head is malformed: {error}") from None
        if is_early:
            self._early.setdefault(stream, []).append(attachment)
        elif (response := self._awaited.pop((stream, attachment.head.number), None)) is not None:
            _settle(response, attachment)

    async def load(
        self, stream: int, request_id: str, form: CallForm, body: bytes | Arrival
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call.

        Raises:
            Exception: They cannot be unpickled.
        """
        responses = [ReferencedResponse[Any](self._loop, request_id) for _ in range(form.num_attached)]
        self._awaited.update(((stream, number), each) for number, each in enumerate(responses))
        for attachment in self._early.pop(stream, ()):
            if (response := self._awaited.pop((stream, attachment.head.number), None)) is not None:
                _settle(response, attachment)
        with giving(responses[len(form.places) :]):
            args, kwargs = decode(body, form.request_encoding)
        positional = list(args)
        for place, response in zip(form.places, responses, strict=False):
            value = await response
            if isinstance(place, int):
                positional[place] = value
            else:
                kwargs[place] = value
        return tuple(positional), kwargs

    def drop(self, stream: int) -> None:
        """A call has ended, perhaps before it asked for anything."""
        self._early.pop(stream, None)

    def close(self) -> None:
        """The caller is gone: nothing more comes."""
        self._early.clear()
        for response in list(self._awaited.values()):
            if not response.settled:
                response.settle_failed(
                    Disconnected(
                        "The process that passed this response by reference is gone, and the result never came "
                        f"(request {response.request_id})."
                    )
                )
        self._awaited.clear()


def _settle(response: ReferencedResponse[Any], attachment: _Attachment) -> None:
    if response.settled:
        return
    if attachment.failed:
        if isinstance(attachment.raw, bytes):
            response.settle_failed(attachment.raw)
    else:
        response.encoding = attachment.head.encoding
        response.settle(attachment.raw)
