"""The directory of a run: who holds it, what it says of itself, how far it is, and what it keeps.

config.json      every setting, the data set, versions, device
metrics.jsonl    one line for each evaluation
checkpoints/     see `vae_jax.runs.checkpoints`
summary.json     the numbers of the finished run
figures/
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.cli.config import Config, RunConfig, fields
from experiments.runner.environment import environment
from vae_jax import data, files, runs
from vae_jax.parallel import processes
from vae_jax.runs import checkpoints
from vae_jax.settings import UserError

DIVERGED = "diverged.json"  # in the directory of a member of a sweep
LOG = "log.txt"  # where a launcher keeps a run's output
APART = {"run", "processes"}  # topics that decide no trained weight: they may differ on --resume
FREE = {"data_dir"}  # settings of other topics that may
GROWING = {"epochs", "steps"}  # and those that may only grow
# Those of topic `run` that a finished run is made for: where they differ, its numbers and figures
# are made anew.
SHOWN = {"nll_samples", "figures", "decode_at", "figure_format", "manifold_grid", "tensorboard"}

Description = dict[str, Any]


def named(name: str, config: Config, dataset: data.Dataset) -> Path:
    """runs/<name>-<hash>; the hash leaves out how long to train and what is measured, so that a
    longer run finds the shorter one to resume.
    """
    deciding = {
        topic: {k: v for k, v in section.items() if k not in FREE | GROWING}
        for topic, section in config.settings.items()
        if topic not in APART
    }
    deciding["data"]["dataset"] = dataset.name
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return Path("runs") / f"{name}-{digest[:8]}"


def default(config: Config, dataset: data.Dataset) -> Path:
    """runs/<data set>-z<latent_dim>-<hash>, or the model's name for z<latent_dim>; see `named`."""
    return named(f"{dataset.name}-{config.model.short}", config, dataset)


def describe(config: Config, dataset: data.Dataset) -> Description:
    """What config.json holds."""
    return {
        "format": runs.FORMAT,
        "settings": config.settings,
        "dataset": data.describe(dataset),
        "environment": environment(),
    }


def deciding(description: Description) -> Any:
    """What all processes of a run must agree in."""
    apart = {field.name for field in dataclasses.fields(RunConfig)} - SHOWN - {"resume"}
    wanted = {
        topic: {name: value for name, value in section.items() if name not in FREE | apart}
        for topic, section in description["settings"].items()
        if topic != "processes"
    }
    return wanted, description["dataset"]["sha256"], description["environment"]["packages"]


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory against a second run; makes it where it is not there.

    Raises UserError where it cannot be written or is in use.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"run_dir {directory} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"run_dir {directory} is in use by another run") from None
        yield


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """One run's directory; description: what its config.json holds, or is to hold."""

    path: Path
    description: Description

    @classmethod
    def of(cls, config: Config, dataset: data.Dataset) -> "RunDirectory":
        path = Path(config.run.run_dir or default(config, dataset))
        return cls(path, describe(config, dataset))

    # Whose it is, and how far

    @contextlib.contextmanager
    def claimed(self, resume: bool) -> Iterator[str]:
        """Holds it, for process 0; its `status`, or the error, for all."""
        with contextlib.ExitStack() as held:

            def claim() -> str:
                held.enter_context(locked(self.path))
                return self.status(resume)

            yield processes.from_first(claim)

    def status(self, resume: bool) -> str:
        """ "new", "started" or "finished"; UserError where the directory holds something else."""
        if not (self.path / "config.json").exists():
            strangers = [p.name for p in self.path.iterdir() if not _left_behind(p.name)]
            if strangers:
                raise UserError(f"run_dir {self.path} is not empty ({strangers[0]}); give another")
            return "new"
        differing = differences(runs.read_config(self.path), self.description)
        if differing:
            said = "; ".join(differing)
            raise UserError(f"run_dir {self.path} holds another run: {said}; give another run_dir")
        if not resume:
            raise UserError(
                f"run_dir {self.path} already holds this run: go on with --resume, "
                "or give another --run_dir"
            )
        return "finished" if self.finished() else "started"

    def finished(self) -> bool:
        """Whether it holds summary and figures of a run with these settings, those apart that show
        in nothing.
        """
        try:
            if "figures" not in (self.summary or {}):  # which are drawn last
                return False
            before = runs.read_config(self.path)["settings"]
        except UserError:
            return False
        return all(
            value == _recorded(before, topic, name)
            for topic, section in self.description["settings"].items()
            for name, value in section.items()
            if (name in SHOWN if topic in APART else name not in FREE)
        )

    def begin(self) -> None:
        """From here on the directory is this run's, and unfinished."""
        (self.path / "summary.json").unlink(missing_ok=True)  # of the shorter run it extends
        for stale in self.path.glob("**/.*.tmp"):  # of writes that a kill cut short
            stale.unlink(missing_ok=True)
        files.write_json(self.path / "config.json", self.description)

    # What it keeps of the training; process 0 reads and writes

    def restore(self, like: Any) -> tuple[Any, Any]:
        """The newest state, as process 0 reads it, and its meta; None where there is none."""
        found: list[Any] = []

        def read() -> Any:
            found.extend(checkpoints.restore_checkpoint(self.path, like) or (None, None))
            return found[1]

        meta = processes.from_first(read)
        if meta is None:
            return None, None
        return processes.arrays_from_first(found[0] if found else None, like), meta

    def save(self, state: Any, meta: Any) -> None:
        checkpoints.save_checkpoint(self.path, state, meta)

    def save_best(self, params: Any, meta: Any) -> None:
        checkpoints.save_best(self.path, params, meta)

    def keep(self, params: Any, step: int, epoch: float) -> None:
        """The weights on the way, for an animation."""
        checkpoints.save_kept(self.path, params, {"step": step, "epoch": epoch})

    def keep_best(self, params: Any, step: int, best: Any) -> None:
        checkpoints.keep_best(self.path, params, step, best)

    @property
    def last_checkpoint(self) -> str:
        saved = checkpoints.checkpoints(self.path)
        return f"the last good checkpoint is {saved[0]}" if saved else "nothing was saved before it"

    @property
    def ended(self) -> dict[str, Any] | None:
        """At which step the training ended, and why."""
        return processes.from_first(lambda: checkpoints.newest_meta(self.path).get("ended"))

    # What it keeps of the numbers

    @property
    def history(self) -> list[dict[str, Any]]:
        return runs.read_metrics(self.path)

    def rewind(self, step: int) -> list[dict[str, Any]]:
        return runs.rewind_metrics(self.path, step)

    def append(self, row: dict[str, Any]) -> None:
        runs.append_metrics(self.path, row)

    @property
    def summary(self) -> dict[str, Any] | None:
        path = self.path / "summary.json"
        return files.read_json(path) if path.exists() else None

    @property
    def diverged(self) -> dict[str, Any] | None:
        """Where a member of a sweep had no finite loss any more."""
        path = self.path / DIVERGED
        return files.read_json(path) if path.exists() else None

    def mark_diverged(self, step: int, loss: str, seconds: float) -> None:
        """`step`: the first whose loss was not finite."""
        files.write_json(self.path / DIVERGED, {"step": step, "loss": loss, "seconds": seconds})

    def write_summary(self, summary: dict[str, Any]) -> None:
        files.write_json(self.path / "summary.json", summary)

    def load(self, vae: Any, condition: Any) -> runs.Run:
        """The trained run as process 0 reads it, in all of them; the code that it names has been
        run already.
        """
        settings = self.description["settings"]
        run = None
        if processes.first():
            run = runs.load(self.path, trust=runs.modules_named(settings))
        meta, history = processes.from_first(lambda: run and (run.meta, run.history))
        shapes = jax.eval_shape(vae.init, jax.random.key(0))
        params = processes.arrays_from_first(run and run.params, shapes)
        return run or runs.Run(self.description, vae, params, condition, meta, {}, history)


def _left_behind(name: str) -> bool:
    """What a run killed before it wrote config.json, or its launcher, may leave."""
    return name in (".lock", LOG) or (name.startswith(".config.json.") and name.endswith(".tmp"))


def _recorded(settings: dict[str, Any], topic: str, name: str) -> Any:
    """A setting of a run. One that the run's version did not have: what it now is by default."""
    known = fields()[name][1].default if name in fields() else "not set"
    return settings.get(topic, {}).get(name, known)


def differences(before: Description, now: Description) -> list[str]:
    """What forbids to go on with a run under other settings, in words."""
    found = data.differences(before["dataset"], now["dataset"])
    for topic, section in now["settings"].items():
        for name, value in section.items():
            was = _recorded(before["settings"], topic, name)
            same_data = name == "dataset" and not found  # under another name, or elsewhere
            if topic in APART or name in FREE or value == was or same_data:
                continue
            if name in GROWING and isinstance(was, int) and value > was:
                if now["settings"]["training"]["schedule"] == "constant":
                    continue
                found.append(f"{name} may not grow when the learning rate's schedule depends on it")
            else:
                rule = " (may only grow)" if name in GROWING else ""
                found.append(f"{name} was {was!r}, now {value!r}{rule}")
    return found
