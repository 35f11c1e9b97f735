"""One setting, written once: its default, its help, its unit and what it may be.

Configurations are frozen dataclasses whose fields are made with `setting`. A dataclass that calls
`validate(self)` from `__post_init__` cannot hold a wrong value, and the command line makes its
flags and their help from the same fields.

A field made with `choice` names an entry of a registry. An entry is a function, a frozen dataclass
of its own settings with a `build`, or the name of one, `package.module:name`. `with_entries` brings
the settings of all entries into the configuration, flat, so that each is a flag; which of them do
nothing follows from where they stand; `chosen` makes the entry that a configuration names. Wherever
a registry's name goes, `package.module:name` goes too: an entry from outside (see `extended`).
"""

import dataclasses
import functools
import importlib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


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
        "registry": None,
    }
    return dataclasses.field(default=default, metadata=metadata)


def choice(default: str, registry: Mapping[str, Any], help: str) -> Any:
    """A dataclass field that names an entry of a registry."""
    field = setting(default, help, choices=registry)
    return dataclasses.field(default=default, metadata={**field.metadata, "registry": registry})


# Checking


def allowed(field: dataclasses.Field) -> str:
    """What a setting may be, in words."""
    if field.metadata["choices"]:
        return "one of " + ", ".join(field.metadata["choices"])
    kind = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    bounds = [f"{sign} {bound:.10g}" for sign, bound in field.metadata["bounds"].items()]
    return " ".join([kind[field.type], " and ".join(bounds)]).strip()  # pyright: ignore[reportArgumentType]


def validate(config: Any) -> None:
    """Raises UserError with one line: the setting, what it may be, what it was given.

    So it does where a setting is given that no chosen entry reads.
    """
    for field in settings_of(type(config)):
        reason = _fault(field, getattr(config, field.name))
        if reason:
            got = getattr(config, field.name)
            raise UserError(f"{field.name} must be {reason}; got {got!r}")
    for line in _idle(config):
        raise UserError(line)


def settings_of(config: type) -> Iterator[dataclasses.Field]:
    """The fields that were made with `setting` or `choice`."""
    return (f for f in dataclasses.fields(config) if "bounds" in f.metadata)


def _fault(field: dataclasses.Field, value: Any) -> str:
    """What the value should have been, or "" where it is right."""
    if field.metadata["registry"] is not None:
        return _unknown_entry(field, value)
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


def _unknown_entry(field: dataclasses.Field, value: Any) -> str:
    """What the name of an entry should have been; an entry itself, made in Python, is right."""
    if not isinstance(value, str):
        return "" if hasattr(value, "build") or callable(value) else allowed(field)
    if value in field.metadata["registry"]:
        return ""
    if not is_outside(value):
        return f"{allowed(field)}, or package.module:name"
    outside(value)  # raises
    return ""


# Entries of registries, and their settings


def entry_of(field: dataclasses.Field, name: str) -> Any:
    """What a registry, or a module outside, has by a name."""
    return resolved(field.metadata["registry"].get(name, name))


def resolved(entry: Any) -> Any:
    """An entry itself; one that is written as package.module:name is imported."""
    return outside(entry) if isinstance(entry, str) else entry


def with_entries(cls: type[T]) -> type[T]:
    """Brings into a class, before `dataclass` sees it, the settings of all entries that its choices
    can name, and of the entries that those can name in turn.

    Entries that share a setting share the one: the same default and the same help.
    """
    known = {n: v for n, v in vars(cls).items() if isinstance(v, dataclasses.Field)}
    waiting = list(known.values())
    while waiting:
        for entry in (waiting.pop().metadata["registry"] or {}).values():
            for field in _own(resolved(entry)):
                if field.name not in known:
                    known[field.name] = _copy(field)
                    waiting.append(field)
                    registry = field.metadata["registry"]
                    cls.__annotations__[field.name] = field.type if registry is None else str
                    setattr(cls, field.name, known[field.name])
                same = known[field.name].default, known[field.name].metadata["help"]
                assert same == (field.default, field.metadata["help"]), f"two of {field.name}"
    cls._flat = True  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def _copy(field: dataclasses.Field) -> Any:
    return dataclasses.field(default=field.default, metadata=field.metadata)


def _own(entry: Any) -> tuple[dataclasses.Field, ...]:
    """The settings of an entry: none where it is a function."""
    return tuple(settings_of(entry)) if dataclasses.is_dataclass(entry) else ()  # pyright: ignore[reportArgumentType]


def chosen(config: Any, name: str) -> Any:
    """The entry that the choice `name` of a configuration names, with its settings in hand."""
    field = type(config).__dataclass_fields__[name]
    value = getattr(config, name)
    entry = entry_of(field, value) if isinstance(value, str) else value
    if not isinstance(entry, type):
        return entry
    return entry(**{f.name: _value(config, f) for f in _own(entry)})


def _value(config: Any, field: dataclasses.Field) -> Any:
    """What an entry is given for one of its settings; for a choice, the entry that is chosen."""
    if not hasattr(config, field.name):
        return field.default
    if field.metadata["registry"] is not None:
        return chosen(config, field.name)
    return getattr(config, field.name)


def build(entry: Any, *arguments: Any) -> Any:
    """What an entry makes: of a function its value, else that of its `build`."""
    return entry.build(*arguments) if hasattr(entry, "build") else entry(*arguments)


def readers(config: type) -> dict[str, dict[str, list[str]]]:
    """setting -> choice -> the names of the entries that read it; without those that all read."""
    fields = {field.name: field for field in settings_of(config)}
    found: dict[str, dict[str, list[str]]] = {}
    for choice_name, field in fields.items():
        for name, entry in (field.metadata["registry"] or {}).items():
            for own in _own(resolved(entry)):
                found.setdefault(own.name, {}).setdefault(choice_name, []).append(name)
    own = {field.name for field in _declared(config)}
    return {name: where for name, where in found.items() if name not in own}


def _declared(config: type) -> Iterator[dataclasses.Field]:
    """The settings that stand in the class itself, and are read whatever is chosen."""
    nested = {f.name for f in settings_of(config) for e in (f.metadata["registry"] or {}).values()
              for f in _own(resolved(e))}  # fmt: skip
    return (field for field in settings_of(config) if field.name not in nested)


def unread(config: type, values: Mapping[str, Any]) -> set[str]:
    """The settings that nothing reads where these values, and else the defaults, are chosen."""
    cls = extended(config, named_outside(config, values))
    fields = {field.name: field for field in settings_of(cls)}

    def value_of(name: str) -> Any:  # of a name that is no entry's the default: that it is wrong is
        field = fields[name]  # said where the configuration is made
        value, registry = values.get(name, field.default), field.metadata["registry"]
        return field.default if registry is not None and value not in registry else value

    return fields.keys() - _active(cls, value_of)


def _active(cls: type, value_of: Callable[[str], Any]) -> set[str]:
    """The settings that are read: the class's own, and those of chosen entries."""
    active = {field.name for field in _declared(cls)}
    waiting = sorted(active)
    while waiting:
        field = cls.__dataclass_fields__[waiting.pop()]  # pyright: ignore[reportAttributeAccessIssue]
        value = value_of(field.name)
        if field.metadata["registry"] is None:
            continue
        entry = entry_of(field, value) if isinstance(value, str) else type(value)
        new = {own.name for own in _own(entry)} - active
        active |= new
        waiting += sorted(new)
    return active


def _idle(config: Any) -> Iterator[str]:
    """A line for each setting that was given and that nothing reads."""
    if not getattr(config, "_flat", False):  # an entry, made of what was chosen
        return
    fields = {field.name: field for field in settings_of(type(config))}
    active = _active(type(config), functools.partial(getattr, config))
    read_by = readers(type(config))
    for name, where in read_by.items():
        if name in active or getattr(config, name) == fields[name].default:
            continue
        here = [c for c in where if c in active] or [_above(c, active, read_by) for c in where]
        idle = " and ".join(f"{c} {getattr(config, c)}" for c in dict.fromkeys(here))
        only = ", ".join(f"{c} {', '.join(names)}" for c, names in where.items())
        if here == [*where]:
            only = ", ".join(*where.values()) if len(where) == 1 else only
        yield f"{name} does nothing for {idle}, only for {only}"


def _above(name: str, active: set[str], read_by: Mapping[str, Mapping[str, Any]]) -> str:
    """The choice that leaves another one unread."""
    while name not in active:
        name = next(iter(read_by[name]))
    return name


# Entries from outside: package.module:name

_OUTSIDE = re.compile(r"(?!tfds:)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_outside(name: Any) -> bool:
    """Whether a name is of the form package.module:name."""
    return isinstance(name, str) and _OUTSIDE.fullmatch(name) is not None


def module_of(name: str) -> str:
    return name.partition(":")[0]


def outside(name: str) -> Any:
    """What a module that somebody wrote has by a name; imports the module.

    Raises UserError with one line where there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise UserError(f"{name}: the module {module} has no {attribute}") from None
    except Exception as error:  # whatever somebody's module raises when it is imported
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{name} cannot be imported: {type(error).__name__}: {reason}") from error


def named_outside(config: type, values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of values of settings, those that name an entry from outside: pairs (choice, name)."""
    registries = {f.name for f in settings_of(config) if f.metadata["registry"] is not None}
    return tuple((n, v) for n, v in sorted(values.items()) if n in registries and is_outside(v))


@functools.cache
def extended(config: type, names: tuple[tuple[str, str], ...]) -> type:
    """The class of settings with those that entries from outside bring. names: `named_outside`."""
    fields = {field.name: field for field in settings_of(config)}
    new = {}
    for choice_name, name in names:
        registry = {**fields[choice_name].metadata["registry"], name: outside(name)}
        metadata = {**fields[choice_name].metadata, "registry": registry}
        new[choice_name] = (
            str,
            dataclasses.field(default=fields[choice_name].default, metadata=metadata),
        )
        for own in _own(registry[name]):
            if own.name not in fields:
                new[own.name] = own.type, _copy(own)
    if not new:
        return config
    return dataclasses.make_dataclass(
        config.__name__, [(n, *v) for n, v in new.items()], bases=(config,), frozen=True
    )


def make(config: type, values: Mapping[str, Any]) -> Any:
    """The settings of these values, with those of the entries from outside that they name."""
    return extended(config, named_outside(config, values))(**values)
