"""What users give, as what a field's type asks for; errors name the option, what was found and what is allowed."""

import difflib
import json
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from salver.schema.errors import InvalidOption

S = TypeVar("S", bound=msgspec.Struct)

_NAMES = {int: "an integer", float: "a number", str: "text", dict: "a dictionary", NoneType: "None", Any: "anything"}

# What difflib does not find: names that options once had.
_FORMER_NAMES = {
    "max_concurrent_queries": "max_ongoing_requests",
    "target_num_ongoing_requests_per_replica": "target_ongoing_requests",
}


def converted(name: str, value: Any, wanted: Any, *, allowed: str | None = None) -> Any:
    """Return a value as its option's type; numbers may come as text.

    Args:
        name: The option, with dots for keys of dictionaries.
        wanted: A type that msgspec understands.
        allowed: What to say in errors instead of what the type says.

    Raises:
        InvalidOption: The value is not allowed.
    """
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        raise InvalidOption(f"Option '{name}' got {value!r}: expected {allowed or described(wanted)}.") from None


def struct_from(name: str, given: S | Mapping[str, Any], struct: type[S]) -> S:
    """Return a config object from a dictionary of its fields, or from one that nobody has checked yet.

    Raises:
        InvalidOption: A key is unknown, or its value not allowed.
    """
    values = msgspec.structs.asdict(given) if isinstance(given, struct) else given
    if not isinstance(values, Mapping):
        raise InvalidOption(
            f"Option '{name}' got {given!r}: expected a dictionary or an instance of {struct.__name__}."
        )
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key in values:
        if key not in known:
            raise InvalidOption(f"Option '{name}' has no key {key!r}.{nearest(str(key), known)}")
    return struct(**{key: converted(f"{name}.{key}", value, known[key]) for key, value in values.items()})


def json_value(name: str, value: Any) -> Any:
    """Return a value as it is after travelling as JSON: a copy, tuples as lists, all keys text.

    Raises:
        InvalidOption: It cannot be turned into JSON.
    """
    try:
        plain = json.loads(json.dumps(value))
        msgspec.msgpack.encode(plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidOption(f"Option '{name}' got {value!r}: {name} is not JSON-serializable ({error}).") from None
    return plain


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean '…'?" for the closest known name, or a list of all where none is close."""
    known = sorted(known)
    former = _FORMER_NAMES.get(name)
    near = [former] if former in known else difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else f" Allowed: {', '.join(known)}."


def described(wanted: Any) -> str:
    """Return what a type allows, in words."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        bounds = [meta for meta in parts[1:] if isinstance(meta, msgspec.Meta)]
        return described(parts[0]) + "".join(_bounds_of(meta) for meta in bounds)
    if origin in (Union, UnionType):
        return _either([described(part) for part in parts])
    if origin is Literal:
        return _either([repr(part) for part in parts])
    if origin is dict:
        return f"a dictionary of {described(parts[1]).removeprefix('a ').replace('number', 'numbers')}"
    return _NAMES.get(wanted) or str(getattr(wanted, "__name__", wanted))


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _bounds_of(meta: msgspec.Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    signs = ((">=", meta.ge), (">", meta.gt), ("<=", meta.le), ("<", meta.lt))
    return "".join(f" {sign} {bound}" for sign, bound in signs if bound is not None).replace(" <", " and <")
