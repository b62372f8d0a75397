"""The policies that Salver has of its own, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from salver.handle.policies.base import Policy
from salver.handle.policies.hashing import NUM_FALLBACK_REPLICAS, NUM_VIRTUAL_NODES, ConsistentHash
from salver.handle.policies.locality import Locality, Place
from salver.handle.policies.prefix import PREFIX_LENGTH, PrefixAffinity
from salver.handle.policies.turns import LeastLoaded, RoundRobin
from salver.schema.conversion import struct_from
from salver.schema.topics import ReplicaEntry

TWO_CHOICES = "power_of_two_choices"
"""What a router does by itself."""

_Positive = Annotated[int, Meta(ge=1)]
_NotNegative = Annotated[int, Meta(ge=0)]


class _Nothing(msgspec.Struct):
    pass


class _Hashing(msgspec.Struct):
    num_virtual_nodes: _Positive = NUM_VIRTUAL_NODES
    num_fallback_replicas: _NotNegative = NUM_FALLBACK_REPLICAS


class _Prefix(_Hashing):
    argument: _NotNegative | str = 0
    field: str = ""
    prefix_length: _Positive = PREFIX_LENGTH


_POLICIES: dict[str, tuple[Callable[..., Policy] | None, type[msgspec.Struct]]] = {
    TWO_CHOICES: (None, _Nothing),
    "round_robin": (RoundRobin, _Nothing),
    "least_loaded": (LeastLoaded, _Nothing),
    "locality": (None, _Nothing),
    "consistent_hash": (ConsistentHash, _Hashing),
    "prefix_affinity": (PrefixAffinity, _Prefix),
}

POLICY_NAMES = frozenset(_POLICIES)


def checked_arguments(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a policy.

    Raises:
        InvalidOption: One is unknown, or its value not allowed.
    """
    _, options = _POLICIES[name]
    return msgspec.structs.asdict(struct_from("request_router_config.request_router_kwargs", kwargs, options))


def policy_for(name: str, kwargs: Mapping[str, Any], place: Place, entries: Sequence[ReplicaEntry]) -> Policy | None:
    """Return the policy of a caller's router; None for two choices among all replicas.

    Args:
        entries: The replicas; distance matters only where not all are on one node.
    """
    make, _ = _POLICIES[name]
    if make is not None:
        return make(**kwargs)
    if place.node_id and len({each.node_id for each in entries}) > 1:
        return Locality(place, always=place.prefers_near or name == "locality")
    return None
