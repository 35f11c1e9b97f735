"""One setting, written once: its default, its help, its unit and what it may be.

Configurations are frozen dataclasses whose fields are made with `setting`. A dataclass that calls
`validate(self)` from `__post_init__` cannot hold a wrong value, and the command line makes its
flags and their help from the same fields.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

_COMPARE = {"≥": operator.ge, ">": operator.gt, "≤": operator.le, "<": operator.lt}


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
    metadata = {
        "help": help,
        "unit": unit,
        "choices": tuple(choices),
        "bounds": {"≥": at_least, ">": above, "≤": at_most, "<": below},
        "parse": parse,
    }
    return dataclasses.field(default=default, metadata=metadata)


def validate(config: Any) -> None:
    """Raises ValueError with one line: the setting, what it may be, what it was given."""
    for field in dataclasses.fields(config):
        if "bounds" not in field.metadata:
            continue  # a plain field, or a nested configuration that has checked itself
        value = getattr(config, field.name)
        reason = _fault(field, value)
        if reason:
            raise ValueError(f"{field.name} must be {reason}; got {value!r}")


def _fault(field: dataclasses.Field, value: Any) -> str:
    """What the value should have been, or "" where it is right."""
    kind = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
    right_type = isinstance(value, (int, float) if field.type is float else field.type)  # pyright: ignore[reportArgumentType]
    if isinstance(value, bool) and field.type is not bool:
        right_type = False
    bounds = {s: b for s, b in field.metadata["bounds"].items() if b is not None}
    wanted = " and ".join([kind[field.type], *(f"{s} {b:g}" for s, b in bounds.items())])  # pyright: ignore[reportArgumentType]
    if not right_type or (isinstance(value, float) and not math.isfinite(value)):
        return wanted
    if not all(_COMPARE[sign](value, bound) for sign, bound in bounds.items()):
        return wanted
    if field.metadata["choices"] and value not in field.metadata["choices"]:
        return "one of " + ", ".join(field.metadata["choices"])
    if field.metadata["parse"]:
        try:
            field.metadata["parse"](value)
        except ValueError as error:
            return str(error)
    return ""
