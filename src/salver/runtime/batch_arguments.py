"""From the arguments of many calls to the lists that a batch handler is called with."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

_ORDINARY = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Shape:
    """Which parameters a call has passed. Calls that passed the same have the same object.

    Attributes:
        count: How many values are passed by position.
        names: Those passed by name, whose values follow.
        defaults: Values of parameters that were left out, by name.
        positional_defaults: Likewise, for what cannot be passed by name.
    """

    __slots__ = ("count", "defaults", "names", "positional_defaults")

    def __init__(self, count: int, names: tuple[str, ...], parameters: Sequence[inspect.Parameter]) -> None:
        self.count = count
        self.names = names
        places = [each for each in parameters if each.kind in _ORDINARY]
        left_out = places[count:] + [each for each in parameters if each.kind is each.KEYWORD_ONLY]
        given = {each for each in left_out if each.default is not each.empty and each.name not in names}
        self.positional_defaults = [each.default for each in places if each in given and each.kind is _ORDINARY[0]]
        self.defaults = {
            each.name: each.default for each in left_out if each in given and each.kind is not _ORDINARY[0]
        }

    def columns(self, rows: Sequence[tuple[Any, ...]]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        """Return what a handler is called with for these calls: a list for each parameter."""
        size = len(rows)
        lists = [list(column) for column in zip(*rows, strict=True)]
        args = lists[: self.count] + [[value] * size for value in self.positional_defaults]
        kwargs = dict(zip(self.names, lists[self.count :], strict=True))
        kwargs.update({name: [value] * size for name, value in self.defaults.items()})
        return args, kwargs


class Arguments:
    """The parameters of a batch handler, as its callers see them.

    Args:
        function: The handler.
        is_method: Its first parameter is the instance.
    """

    def __init__(self, function: Callable[..., Any], *, is_method: bool) -> None:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if is_method and parameters and parameters[0].kind in _ORDINARY:
            del parameters[0]
        self._signature = signature.replace(parameters=parameters)
        self._shapes: dict[tuple[int, tuple[str, ...]], Shape] = {}
        self._by_count: dict[int, Shape] = {}

    def taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Shape, tuple[Any, ...]]:
        """Return a call's shape and its values in the shape's order.

        Raises:
            TypeError: The handler has no such parameter, or needs one that is missing.
        """
        if not kwargs and (known := self._by_count.get(len(args))) is not None:
            return known, args
        bound = self._signature.bind(*args, **kwargs)
        named = bound.kwargs
        names = tuple(sorted(named))
        key = (len(bound.args), names)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(*key, list(self._signature.parameters.values()))
        if not names:
            # From now on, as many values by position need no second look.
            self._by_count[shape.count] = shape
        return shape, (*bound.args, *(named[name] for name in names))
