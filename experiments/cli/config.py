"""The settings of an experiment, and the command line made from them.

A setting is written once, as a field of one of the library's configurations; its flag, its help
and its check follow. A flag's name is the field's name.
"""

import contextlib
import dataclasses
import errno
import importlib.metadata
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import flags

from experiments.cli import environment, suggest
from experiments.cli.presets import PRESETS, SHORTCUTS, resolve
from vae_jax.data import sources
from vae_jax.data.dataset import DataConfig
from vae_jax.models.build import MODELS, ModelConfig
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.parallel import processes
from vae_jax.parallel.processes import ProcessConfig
from vae_jax.settings import (
    UserError,
    allowed,
    extended,
    is_outside,
    named_outside,
    readers,
    setting,
    settings_of,
    validate,
)
from vae_jax.training.state import TrainConfig


def numbers(text: str) -> tuple[float, ...]:
    """'1,2' -> (1.0, 2.0); '' -> (). Raises ValueError."""
    try:
        found = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise ValueError("finite numbers joined by ',', such as 1,2, or empty")
    return found


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What is measured and kept; none of it changes the trained weights."""

    run_dir: str = setting("", "where to write; by default runs/<data set>-z<latent_dim>-<hash>")
    resume: bool = setting(False, "go on from the last checkpoint in the run directory, if any")
    eval_every: int = setting(1, "evaluate and save this often", unit="epochs", at_least=1)
    keep_checkpoints: int = setting(
        0, "keep the weights this often, for experiments.plot's animation; 0 keeps only the best",
        unit="epochs", at_least=0,
    )  # fmt: skip
    nll_samples: int = setting(
        500, "importance samples an image for the test NLL", unit="samples", at_least=1
    )
    z_at_once: int = setting(
        5000, "z that evaluation draws at a time, on each device; fewer take less memory",
        at_least=1,
    )  # fmt: skip
    device_limit: float = setting(
        0.0, "training images larger than this stream from the host; 0: half of a GPU's memory",
        unit="GiB", at_least=0,
    )  # fmt: skip
    figures: str = setting(
        "usual",
        "all: also the latents of the training set; with two latents, images encoded, drawn from "
        "their posteriors and decoded, and the decoder at z = (1, 2)",
        choices=("usual", "all"),
    )  # fmt: skip
    decode_at: str = setting(
        "", "draw what the decoder makes of this z, such as 0.5,-1; given a part of the first test "
        "image, where the model is given one",
        parse=numbers,
    )  # fmt: skip
    figure_format: str = setting("png", "format of the figures", choices=("png", "pdf", "svg"))
    manifold_grid: str = setting(
        "quantile", "grid of the 2-D manifold: quantiles of N(0,1), or linspace(−3, 3)",
        choices=("quantile", "linspace"),
    )  # fmt: skip
    deterministic: bool = setting(
        False, "ask the compiler for deterministic kernels (slower on GPUs; CPUs always are)"
    )
    profile: int = setting(
        0, "trace so many steps, before training and apart from it, to profile/ in the run "
        "directory; 0 is off", unit="steps", at_least=0,
    )  # fmt: skip
    tensorboard: bool = setting(False, "scalars and figures for TensorBoard too (tensorboardX)")

    def __post_init__(self) -> None:
        validate(self)


Fields = dict[str, tuple[str, dataclasses.Field]]


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment, whole."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainConfig = TrainConfig()
    run: RunConfig = RunConfig()
    processes: ProcessConfig = ProcessConfig()

    @classmethod
    def of_flags(cls, preset: str, given: dict[str, Any]) -> "Config":
        """From --preset and the flags given beside it, by name."""
        return assemble(cls, resolve(preset, given))

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every setting, by topic, as config.json holds it."""
        return dataclasses.asdict(self)


def topics(config: type, values: Mapping[str, Any] = {}) -> dict[str, type]:
    """Topic -> the class of its settings, with those of entries from outside that values name."""
    classes: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(config)}
    return {name: extended(cls, named_outside(cls, values)) for name, cls in classes.items()}


def fields(config: type = Config, values: Mapping[str, Any] = {}) -> Fields:
    """Every setting's name -> (topic, field); values as for `topics`."""
    found = {}
    for topic, cls in topics(config, values).items():
        for field in settings_of(cls):
            assert field.name not in found, f"two settings are called {field.name}"
            found[field.name] = (topic, field)
    return found


MODEL_HELP = (
    "vae: p(x); cvae: p(x|c), by default c is the middle column; regressor: p(x|c) without latents"
)
PRESET_HELP = (
    "flag values of a paper or a code, each of which a flag of your own overrides: doersch "
    "(cdoersch/vae_tutorial), oduerr (oduerr/dl_tutorial), kingma (Kingma & Welling 2014), iwae "
    "(Burda et al. 2016)"
)


class _Parser(flags.ArgumentParser):
    """absl's parser for one field: its message names what the field may be."""

    syntactic_help = ""

    def __init__(self, field: dataclasses.Field) -> None:
        self.field = field

    def parse(self, argument: Any) -> Any:
        try:
            return self.field.type(argument)  # pyright: ignore[reportCallIssue]
        except (TypeError, ValueError):
            raise ValueError(f"must be {allowed(self.field)}") from None


def _flag_values(known: Fields) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("flagfile", "", "a file with one flag a line", flag_values=values)
    for name, (_, field) in known.items():
        if field.type is bool:  # --resume, --noresume, --resume=true
            flags.DEFINE_boolean(name, bool(field.default), "", flag_values=values)
        else:
            flags.DEFINE(_Parser(field), name, field.default, "", flag_values=values)
    return values


def _named_outside(config: type, arguments: Sequence[str]) -> dict[str, Any]:
    """The entries from outside that a command line names, whose settings are flags too."""
    values = _flag_values(fields(config))
    try:
        values(["", *arguments], known_only=True)
    except (flags.Error, OSError):  # said when all flags are known
        return {}
    return {name: values[name].value for name in fields(config) if is_outside(values[name].value)}


def parse(
    arguments: Sequence[str], config: type = Config, positional: str = "", preset: str = ""
) -> Any:
    """The configuration, of class `config`, of a command line. Raises UserError with one line.

    positional: the setting that is written without its name, and is then required. preset: the one
    to start from where none is given.
    """
    known = fields(config, _named_outside(config, arguments))
    values = _flag_values(known)
    if issubclass(config, Config):
        flags.DEFINE_string("preset", preset, "", flag_values=values)
    try:
        rest = values(["", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        near = suggest.flag(error.flagname, values)
        meant = f". Did you mean: {near}?" if near else ""
        line = f"Unknown command line flag '{error.flagname}'{meant}"
        raise UserError(f"{line} (--help lists the flags)") from None
    except (flags.Error, OSError) as error:
        line = str(error).splitlines()[0].removeprefix("ERROR:: ")
        raise UserError(f"{line} (--help lists the flags)") from None
    given = {name: values[name].value for name in known if values[name].present}
    _check_names(known, {**given, "preset": values["preset"].value if "preset" in values else ""})
    if positional and not (positional in given and not rest):  # --run_dir=X says it too
        if len(rest) != 1 or positional in given:
            got = [*rest, *([given[positional]] if positional in given else [])]
            raise UserError(f"give one {positional.upper()}; got {got or 'none'}")
        given[positional], rest = rest[0], []
    if rest:
        name, (_, field) = next(iter(known.items()))
        example = f"--{name}={field.default}"
        raise UserError(f"flags start with --, such as {example}; got {rest[0]!r}")
    if issubclass(config, Config):
        return config.of_flags(str(values["preset"].value), given)
    return assemble(config, given)


def _check_names(known: Fields, given: Mapping[str, Any]) -> None:
    """UserError with what may have been meant, where a value is like the name of a choice."""
    more = {"preset": PRESETS, "model": (*SHORTCUTS, *MODELS), "dataset": ("auto", *sources.NAMES)}
    for name, value in given.items():
        field = known[name][1] if name in known else None
        choices = tuple(more.get(name, field.metadata["choices"] if field else ()))
        if not choices or not isinstance(value, str) or not value or value in choices:
            continue
        near = "" if set(value) & set("./:") else suggest.value(value, choices)  # a file, tfds:NAME
        if near:
            rule = f"one of {', '.join(choices)}"
            raise UserError(f"{name} must be {rule}; got {value!r}. Did you mean: {near}?")


def assemble(config: type, given: dict[str, Any]) -> Any:
    """The configuration of class `config` with these settings, by name; the others' defaults."""
    sections = {}
    for topic, cls in topics(config, given).items():
        names = [field.name for field in settings_of(cls)]
        sections[topic] = cls(**{name: given[name] for name in names if name in given})
    return config(**sections)


def usage(program: str, config: type = Config, positional: str = "", only: str = "") -> str:
    """The flags by topic, each with what it may be, its unit and its default.

    only: one topic. Raises UserError where there is none of that name.
    """
    if only and only not in topics(config):
        raise UserError(f"help must be of one of {', '.join(topics(config))}; got {only!r}")
    argument = positional and f" {positional.upper()}"
    lines = [f"python -m {program}{argument} [--flag=value …] [--flagfile=FILE]"]
    lines += ["--help=TOPIC shows one of " + ", ".join(topics(config))] * (len(topics(config)) > 1)
    if issubclass(config, Config) and not only:
        lines += ["", "flags that set several others:"]
        for name, known, text in (
            ("model", SHORTCUTS, MODEL_HELP),
            ("preset", PRESETS, PRESET_HELP),
        ):
            lines.append(f"  --{name}={', '.join(known)}")
            lines += [f"      {line}" for line in textwrap.wrap(text, 88)]
    topic = ""
    for name, (owner, field) in fields(config).items():
        if name == positional or only not in ("", owner):
            continue
        if owner != topic:
            topic = owner
            lines += ["", f"{topic}:"]
        default = f"default {_shown(field.default)}"
        unit = field.metadata["unit"] and f" {field.metadata['unit']}"
        lines.append(f"  --{name} ({default}{unit}; {allowed(field)})")
        read_by = _read_by(topics(config)[owner], name)
        wrapped = textwrap.wrap(field.metadata["help"] + read_by, 88)
        lines += [f"      {line}" for line in wrapped]
    return "\n".join(lines)


def _read_by(cls: type, name: str) -> str:
    """Which entries read a setting, where not all do."""
    where = readers(cls).get(name, {})
    said = [f"{c} {', '.join(names)}" for c, names in where.items() if c != "model"]
    return f" [{'; '.join(said)}]" if said else ""


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or "empty"


# Of the files that an experiment writes; anything else is a defect, and keeps its traceback.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def _spent(error: Exception) -> str:
    """What the machine has no more of, in one line; "" where the error is a defect."""
    if isinstance(error, OSError):
        known = error.errno in _DISK
        return f"{error.filename}: {error.strerror}; what was saved is whole" if known else ""
    reason = next(iter(str(error).splitlines()), "")
    if isinstance(error, MemoryError) or reason.startswith("RESOURCE_EXHAUSTED"):
        return f"out of memory ({reason}): lower batch_size, num_samples, z_at_once or widths"
    return ""


def main(
    program: str,
    run: Callable[[Any], int | None],
    config: type = Config,
    positional: str = "",
    preset: str = "",
) -> None:
    """Runs an experiment from the command line: a wrong value is one line and exit code 2.

    So is a warning; and a disk that cannot be written or a memory that is full, with exit code 1.
    """
    with environment.prepared():
        code = _run(program, run, config, positional, preset)
        code = _flushed(code)
    sys.exit(code)


def _version() -> str:
    try:
        return importlib.metadata.version("vae-jax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _flushed(code: int) -> int:
    """The exit code, once all that was printed has left."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: {_spent(error)}", file=sys.stderr)
        return code or 1
    return code


def _run(
    program: str, run: Callable[[Any], int | None], config: type, positional: str, preset: str
) -> int:
    """The exit code of a command; what goes wrong is one line."""
    arguments = sys.argv[1:]
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(arguments):
        print(usage(program, config, positional))
        return 0
    if "--version" in arguments:
        print(f"vae-jax {_version()}")
        return 0
    try:
        for topic in (a.partition("=")[2] for a in arguments if a.startswith("--help=")):
            print(usage(program, config, positional, topic))
            return 0
        settings = parse(arguments, config, positional, preset)
        # Read when JAX first asks for its devices: later than this.
        if issubclass(config, Config) and settings.run.deterministic:
            flag = "--xla_gpu_deterministic_ops=true"
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        if issubclass(config, Config):
            processes.start(settings.processes)
        environment.check_devices()
        return processes.run(lambda: run(settings) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        line = _spent(error)
        if not line:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
