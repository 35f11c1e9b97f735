"""What a run says of itself in config.json, or in a pack: checked in one place.

Whoever wrote it, it may be damaged or meant to do harm: whatever is wrong is a UserError of one
line, before anything is built of it. It may name entries from outside, `package.module:name`; their
modules are imported only where the caller trusts them.
"""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vae_jax import settings
from vae_jax.data import DataConfig
from vae_jax.models import ModelConfig
from vae_jax.objectives import ObjectiveConfig
from vae_jax.settings import UserError
from vae_jax.training import TrainConfig

FORMAT = 2  # of run directories and packs; version 0.1 had none
# Topic of the settings -> what checks them; others are not the library's to read
TOPICS = {
    "data": DataConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "training": TrainConfig,
}
_BYTES = 2**20  # of config.json
_PIXELS, _CLASSES, _LETTERS = 2**24, 2**20, 1000  # the most there can be, in an image, a setting
_LAYERS = 100  # each takes a while to build, before any weights are compared


def read_config(directory: Path, trust: Collection[str] = ()) -> dict[str, Any]:
    """What config.json in a run directory holds, checked; see `checked`."""
    path = directory / "config.json"
    try:
        if path.stat().st_size > _BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        config = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected a run directory made by a training"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON: {first(error)}") from None
    return checked(config, path, trust)


def loads(text: str) -> Any:
    """JSON as we write it: every number finite, no integer of more than 63 bits, no name twice."""
    return json.loads(
        text, parse_constant=_finite, parse_float=_finite, parse_int=_short, object_pairs_hook=_once
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite; got {text[:40]}")
    return value


def _short(text: str) -> int:
    if len(text) > 19:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def first(error: BaseException) -> str:
    """The first line of an error, printable whatever was in the file."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in line)[:200]


def checked(config: Any, where: Path, trust: Collection[str] = ()) -> dict[str, Any]:
    """The same, with the settings that it leaves out at their defaults.

    trust: modules, or packages of them, whose code may be run (see `modules_named`).
    """
    _expect(isinstance(config, dict), where)
    if config.get("format") != FORMAT:
        raise UserError(f"{where} is of a run of another version, which cannot be read: train anew")
    given = config.get("settings")
    _expect(_sections(given, TOPICS) and _sections(config, ("dataset", "environment")), where)
    _expect(all(isinstance(section, dict) for section in given.values()), where)
    _check_texts(given, where)
    _check_trusted(given, where, trust)
    _check_data(config["dataset"], where)
    try:
        known = {topic: _complete(cls, given[topic]) for topic, cls in TOPICS.items()}
    except (TypeError, UserError) as error:
        raise UserError(f"{where} does not describe a run: {first(error)}") from None
    return {**config, "settings": {**given, **known}}


def _sections(value: Any, names: Collection[str]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), dict) for name in names)


def _complete(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of one topic, checked, those that are left out by default."""
    made = settings.make(cls, given)
    return {field.name: getattr(made, field.name) for field in settings.settings_of(type(made))}


def _check_texts(given: dict[str, Any], where: Path) -> None:
    for section in given.values():
        for name, value in section.items():
            plain = value is None or isinstance(value, (str, int, float, bool))
            short = len(name) <= _LETTERS and not (isinstance(value, str) and len(value) > _LETTERS)
            _expect(plain and short, where)
    _expect(str(given["model"].get("widths")).count("-") < _LAYERS, where)


def modules_named(given: dict[str, Any]) -> list[str]:
    """The modules from outside that settings name, `package.module` of `package.module:name`."""
    values = [value for topic in TOPICS for value in given[topic].values()]
    return [settings.module_of(value) for value in values if settings.is_outside(value)]


def _check_trusted(given: dict[str, Any], where: Path, trust: Collection[str]) -> None:
    for module in modules_named(given):
        package = module.split(".")
        if not any(".".join(package[: i + 1]) in trust for i in range(len(package))):
            raise UserError(
                f"{where} names code from outside, the module {module}: where you trust it, load "
                f"with trust=[{module!r}], or --trust={module}"
            )


def _check_data(dataset: dict[str, Any], where: Path) -> None:
    """Shapes are what memory is asked for before any weights are compared with them."""
    texts = ("name", "source", "sha256", "labels_sha256")
    _expect(all(isinstance(dataset.get(name), str) for name in texts), where)
    shape: Any = dataset.get("x_shape")
    classes: Any = dataset.get("num_classes", 0)
    whole = isinstance(shape, list) and len(shape) in (1, 3) and all(type(n) is int for n in shape)
    _expect(whole and min(shape) >= 1 and math.prod(shape) <= _PIXELS, where)
    _expect(type(classes) is int and 0 <= classes <= _CLASSES, where)
    names: Any = dataset.get("classes", [])
    texts = isinstance(names, list) and all(isinstance(n, str) for n in names)
    _expect(texts and len(names) in (0, classes) and len({*names}) == len(names), where)


def _expect(right: Any, where: Path) -> None:
    if not right:
        raise UserError(f"{where} does not describe a run")
