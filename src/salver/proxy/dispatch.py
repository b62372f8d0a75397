"""From a request to the exchange that answers it; the same for every version of HTTP."""

from salver.handle.request_context import request_ids
from salver.handle.router import Router
from salver.proxy.body_limit import too_long
from salver.proxy.deadlines import timeout_s_of
from salver.proxy.exchange import Client, Exchange
from salver.proxy.heads import outcome_head
from salver.proxy.request import Request
from salver.proxy.site import Site
from salver.schema.outcomes import Outcome
from salver.transport.wire import HttpHead


class Caller:
    """Who asks: what is the same for all requests of a connection.

    Args:
        peer: Address and port.
        scheme: "http" or "https".
    """

    __slots__ = ("peer", "scheme")

    def __init__(self, peer: tuple[str, int] | None, scheme: str) -> None:
        self.peer = peer
        self.scheme = scheme


def look_up(site: Site, caller: Caller, request: Request) -> tuple[HttpHead, Router | None, Outcome | None]:
    """Return what a replica is told of a request, and its router, or the answer that needs no replica."""
    if request.request_id:
        request_id = request.request_id.decode("latin-1")
    else:
        request_id = request_ids.new()
        request.request_id = request_id.encode()
    place, query = site.places.find(request.target)
    hints = request.hints
    outcome = request.refused or (site.own_answer(place.path) if place.is_own else None) or place.outcome
    limit = request.max_body_size_bytes = place.max_body_size_bytes
    if limit is not None and outcome is None:
        outcome = too_long(request, limit)
    head = HttpHead(
        request.method,
        place.path,
        query,
        request.version,
        request.headers,
        caller.peer,
        request_id,
        place.root_path,
        place.prefix,
        place.raw_path,
        None,
        caller.scheme,
        hints.multiplexed_model_id,
        hints.session_id,
        hints.urgency,
    )
    return (head, place.router, None) if outcome is None else (head, None, outcome)


def refusal_of(site: Site, request: Request) -> Outcome | None:
    """Return why the body of a request need not be sent, or None."""
    place, _ = site.places.find(request.target)
    if place.outcome is None and place.max_body_size_bytes is not None:
        return too_long(request, place.max_body_size_bytes)
    return place.outcome


def timeout_of(site: Site, request: Request) -> float | None:
    """Return how many seconds a request may take, or None."""
    timeout_s = site.options.request_timeout_s
    if timeout_s is not None or request.timeout:
        timeout_s = timeout_s_of(request.timeout, timeout_s)
    return timeout_s


def exchange_for(client: Client, site: Site, caller: Caller, request: Request) -> tuple[Exchange, Outcome | None]:
    """Return a request's exchange and the answer that needs no replica; `begin` sends one or the other on its way."""
    head, router, outcome = look_up(site, caller, request)
    return Exchange(client, router, head, request, timeout_of(site, request)), outcome


def begin(client: Client, exchange: Exchange, outcome: Outcome | None) -> None:
    """Give an exchange to its router, or answer it."""
    if exchange.router is not None:
        exchange.router.route(exchange)
    elif outcome is not None:
        client.write_whole(exchange, outcome_head(outcome), outcome.body)
