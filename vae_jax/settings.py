"""One setting, written once: its default, its help, its unit and what it may be.

Configurations are frozen dataclasses whose fields are made with `setting`. A dataclass that calls
`validate(self)` from `__post_init__` cannot hold a wrong value, and the command line makes its
flags and their help from the same fields.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable
from typing import Any


class UserError(ValueError):
    """One line for the person at the keyboard: what is wrong and what is allowed."""


_COMPARE = {"≥": operator.ge, ">": operator.gt, "≤": operator.le, "<": operator.lt}
# What a program can hold, where a setting states no bound of its own above.
_MOST_INT = 2**31 - 1  # JAX counts in int32
_MOST_FLOAT = 3.4e38  # of float32


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: Iterable[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A dataclass field that knows its help text, its unit and its allowed values.

    `parse` is called on the value and may raise ValueError with the reason.
    """
    bounds = {"≥": at_least, ">": above, "≤": at_most, "<": below}
    metadata = {
        "help": help,
        "unit": unit,
        "choices": tuple(choices),
        "bounds": {sign: bound for sign, bound in bounds.items() if bound is not None},
        "parse": parse,
    }
    return dataclasses.field(default=default, metadata=metadata)


def allowed(field: dataclasses.Field) -> str:
    """What a setting may be, in words."""
    if field.metadata["choices"]:
        return "one of " + ", ".join(field.metadata["choices"])
    kind = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    bounds = [f"{sign} {bound:.10g}" for sign, bound in field.metadata["bounds"].items()]
    return " ".join([kind[field.type], " and ".join(bounds)]).strip()  # pyright: ignore[reportArgumentType]


def validate(config: Any) -> None:
    """Raises UserError with one line: the setting, what it may be, what it was given."""
    for field in dataclasses.fields(config):
        if "bounds" in field.metadata:
            value = getattr(config, field.name)
            reason = _fault(field, value)
            if reason:
                raise UserError(f"{field.name} must be {reason}; got {value!r}")


def _fault(field: dataclasses.Field, value: Any) -> str:
    """What the value should have been, or "" where it is right."""
    types = {bool: bool, int: int, float: (int, float), str: str}[field.type]  # pyright: ignore[reportArgumentType]
    if not isinstance(value, types) or (isinstance(value, bool) and field.type is not bool):
        return allowed(field)
    if field.type is float and not abs(value) <= _MOST_FLOAT:  # NaN too
        return allowed(field)
    bounds = field.metadata["bounds"]
    if field.type is int and not {"≤", "<"} & bounds.keys() and value > _MOST_INT:
        return f"{allowed(field)}{' and' * bool(bounds)} ≤ {_MOST_INT}"
    if not all(_COMPARE[sign](value, bound) for sign, bound in bounds.items()):
        return allowed(field)
    if field.metadata["choices"] and value not in field.metadata["choices"]:
        return allowed(field)
    if field.metadata["parse"]:
        try:
            field.metadata["parse"](value)
        except ValueError as error:
            return str(error)
    return ""
