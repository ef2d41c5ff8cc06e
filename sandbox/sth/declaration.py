"""The `sequence` decorator, and how the parameters of a Sequence are filled."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sth.context import Context

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__sth_sequence__"
_CONTEXT_NAMES = ("context", "ctx")


@dataclass(frozen=True, slots=True)
class Declaration:
    """Content types that a Sequence was declared with; "" means not said."""

    input: str = ""
    output: str = ""


def sequence(*, input: str = "", output: str = "") -> Callable[[Function], Function]:
    """Marks the function that is the Sequence, and says its content types.

    The function gets the input as its first parameter. A parameter that is annotated with
    `Context`, or is named `context` or `ctx`, gets the context. The others are filled from the
    Instance's arguments in order, and those that these do not reach from `config` by name.
    """

    def mark(function: Function) -> Function:
        setattr(function, _MARK, Declaration(input=input, output=output))
        return function

    return mark


def declaration_of(function: object) -> Declaration | None:
    """What `sequence` said of this function; None if it is not marked."""
    found = getattr(function, _MARK, None)
    return found if isinstance(found, Declaration) else None


def call(
    function: Callable[..., Any],
    context: Context,
    source: object,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> Any:
    """Calls a Sequence as it is declared, and gives what it returns.

    A function that is not marked is called as `run(context, input, *arguments)`. TypeError says
    which argument is missing or how many are too many.
    """
    if declaration_of(function) is None:
        return function(context, source, *arguments)
    bound = _bind(function, context, source, arguments, named)
    return function(*bound.args, **bound.kwargs)


def _bind(
    function: Callable[..., Any],
    context: Context,
    source: object,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> inspect.BoundArguments:
    signature = inspect.signature(function)
    hints = _hints(function)
    filled: dict[str, Any] = {}
    waiting = list(arguments)
    input_given = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            filled[name] = tuple(waiting)
            waiting = []
        elif hints.get(name) is Context or (name in _CONTEXT_NAMES and name not in hints):
            filled[name] = context
        elif not input_given:
            filled[name] = source
            input_given = True
        elif waiting and parameter.kind is not parameter.KEYWORD_ONLY:
            filled[name] = waiting.pop(0)
        elif name in named:
            filled[name] = named[name]
        elif parameter.default is parameter.empty:
            raise TypeError(f"{function.__name__}() needs {name!r}, in its arguments or its config")
    if waiting:
        raise TypeError(f"{function.__name__}() got {len(waiting)} arguments too many")
    bound = inspect.BoundArguments(signature, filled)
    bound.apply_defaults()
    return bound


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as objects, where they can be resolved."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return dict(getattr(function, "__annotations__", {}))
