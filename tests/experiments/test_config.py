"""Settings and flags: every setting is a flag, every wrong value is one line."""

import dataclasses
import re
import sys

import jax
import pytest

from experiments import run as job
from experiments.cli import suggest
from experiments.cli.config import Config, RunConfig, fields, main, parse, topics, usage
from vae_jax.data import sources
from vae_jax.data.dataset import DataConfig
from vae_jax.models.build import ModelConfig
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.settings import UserError, readers, setting, validate
from vae_jax.training.state import TrainConfig

WRONG = {
    "--latent_dim=-1": "latent_dim must be a whole number ≥ 0; got -1",
    "--latent_dim=two": "must be a whole number ≥ 0",
    "--latent_dim=2.5": "must be a whole number ≥ 0",
    "--latent_dim=": "must be a whole number ≥ 0",
    "--latent_dim": "Missing value for flag --latent_dim",
    "--latent=2": "Did you mean: latent_dim",
    "--lr=1": "Did you mean: learning_rate?",
    "--latent-dim=2": "Did you mean: latent_dim?",
    "--optimizer=adam": "Did you mean: optimiser?",
    "--dataset=MNIST": "Did you mean: mnist?",
    "--dataset=Fashion-MNIST": "Did you mean: fashion_mnist?",
    "--objective=IWAE": "Did you mean: iwae?",
    "--activation=ReLU": "Did you mean: relu?",
    "--model=Doersch": "Did you mean: doersch?",
    "--preset=Doersch": "Did you mean: doersch?",
    "--likelihood=normal": "Did you mean: gaussian?",
    "--no_such_flag=1": "Unknown command line flag 'no_such_flag'",
    "latent_dim=2": "flags start with --",
    "--beta=nan": "beta must be a finite number ≥ 0; got nan",
    "--beta=-0.5": "beta must be a finite number ≥ 0",
    "--beta=1e39": "beta must be a finite number ≥ 0; got 1e+39",
    "--steps=2147483648": "steps must be a whole number ≥ 0 and ≤ 2147483647; got 2147483648",
    "--nll_samples=99999999999999999999": "nll_samples must be a whole number ≥ 1 and ≤ 2147483647",
    "--beta=inf": "beta must be a finite number ≥ 0",
    "--learning_rate=0": "learning_rate must be a finite number > 0",
    "--learning_rate=inf": "learning_rate must be a finite number > 0",
    "--learning_rate=-0.001": "learning_rate must be a finite number > 0",
    "--batch_size=0": "batch_size must be a whole number ≥ 1",
    "--epochs=0": "epochs must be a whole number ≥ 1",
    "--steps=-3": "steps must be a whole number ≥ 0",
    "--widths=500,250": "widths must be auto, or layer widths joined by '-'",
    "--widths=500-0": "widths must be auto, or layer widths joined by '-'",
    "--widths=wide": "widths must be auto, or layer widths joined by '-'",
    "--network=transformer": "network must be one of mlp, conv, resnet",
    "--activation=swish9": "activation must be one of relu",
    "--likelihood=gauss": "likelihood must be one of bernoulli",
    "--objective=elob": "objective must be one of elbo",
    "--optimiser=adagrad9": "optimiser must be one of adam",
    "--schedule=step": "schedule must be one of constant, cosine",
    "--binarisation=sometimes": "binarisation must be one of dynamic, static, threshold, none",
    "--ema=1": "ema must be a finite number ≥ 0 and < 1",
    "--clip=-1": "clip must be a finite number ≥ 0",
    "--seed=-1": "seed must be a whole number ≥ 0",
    "--seed=4294967296": "seed must be a whole number ≥ 0 and < 4294967296",
    "--eval_every=0": "eval_every must be a whole number ≥ 1",
    "--nll_samples=0": "nll_samples must be a whole number ≥ 1",
    "--figure_format=gif": "figure_format must be one of png, pdf, svg",
    "--manifold_grid=polar": "manifold_grid must be one of quantile, linspace",
    "--validation_size=-1": "validation_size must be a whole number ≥ 0",
    "--resume=perhaps": "Non-boolean argument to boolean flag",
    "--flagfile=/no/such/file": "Unable to open flagfile",
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_value_is_one_line(argument):
    with pytest.raises(UserError) as error:
        parse([argument])
    assert WRONG[argument] in str(error.value)
    assert "\n" not in str(error.value)


COMPANY = {  # flags that one goes with, where it is not enough to choose what reads it
    "num_processes": ["--coordinator=h:1"],
    "process_id": ["--coordinator=h:1", "--num_processes=3"],
    "capacity_steps": ["--capacity=0.5"],
    "free_bits_groups": ["--free_bits=0.5"],
    "num_samples": ["--objective=iwae"],
    "num_groups": ["--objective=miwae", "--num_samples=2"],
    "initial_scale": ["--initialiser=normal"],
    "kl_warmup": ["--kl_schedule=linear", "--kl_warmup=7"],
    "kl_cycles": ["--kl_schedule=cyclical", "--kl_warmup=7"],
    "info_lambda": ["--objective=info", "--beta=0.01"],
    "target_distortion": ["--objective=geco", "--target_distortion=3"],
    "kl_schedule": ["--kl_schedule=linear", "--kl_warmup=7"],
}
TEXTS = {
    "dataset": "digits", "likelihood_scale": "per_pixel", "decode_at": "1,2",
    "log_scale_range": "-3,3", "objective": "info", "kl_schedule": "cyclical",
    "layer_widths": "3-3,4", "groups": "2x1",
}  # fmt: skip


def company(name: str) -> list[str]:
    """Flags under which a setting is read, and may be changed alone."""
    chosen = COMPANY.get(name, [])
    if chosen or name not in fields():
        return chosen
    cls = topics(Config)[fields()[name][0]]
    where = readers(cls).get(name, {})
    chosen = [f"--{choice}={names[-1]}" for choice, names in where.items() if choice != "prior"]
    return chosen[:1] or [f"--prior={names[-1]}" for names in where.values()]


def test_every_field_is_a_flag_and_reaches_its_section():
    """Each flag, given a value that is not its default, changes its own field alone."""
    other = {bool: lambda v: "true", int: lambda v: str(v + 1), float: lambda v: "0.05"}
    for name, (topic, field) in fields().items():
        if name in TEXTS:
            value = TEXTS[name]
        elif field.metadata["choices"]:
            value = field.metadata["choices"][-1]
        elif field.type is str:
            value = "3-3"
        else:
            value = other[field.type](field.default)
        if name == "target_distortion":
            value = "4"
        with_it = company(name)
        before, changed = parse(with_it), parse([*with_it, f"--{name}={value}"])
        for section in dataclasses.fields(Config):
            default, now = getattr(before, section.name), getattr(changed, section.name)
            wanted = {name: field.type(value)} if section.name == topic else {}
            if field.type is bool and wanted:
                wanted = {name: True}
            assert now == dataclasses.replace(default, **wanted)


def test_defaults_without_flags():
    assert parse([]) == Config(
        DataConfig(), ModelConfig(), ObjectiveConfig(), TrainConfig(), RunConfig()
    )


def test_a_memory_that_is_full_is_one_line(monkeypatch, capsys):
    def run(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(SystemExit) as ended:
        main("experiments.run", run)
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.startswith("error: out of memory")
    assert error.count("\n") == 1


def test_a_model_that_cannot_fit_is_refused_before_anything_is_written(tmp_path):
    flags = ["--dataset=digits", "--widths=1000000-1000000", f"--run_dir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="parameters, more than"):
        job.main(parse(flags))
    assert not list(tmp_path.iterdir())


def test_flagfile(tmp_path):
    path = tmp_path / "flags"
    path.write_text("--latent_dim=7\n# a comment\n--beta=4\n--resume\n")
    config = parse([f"--flagfile={path}", "--latent_dim=9"])
    assert (config.model.latent_dim, config.objective.beta, config.run.resume) == (9, 4.0, True)


def test_help_shows_every_flag_with_its_default():
    text = usage("experiments.run")
    for name, (topic, field) in fields().items():
        assert f"\n{topic}:\n" in text
        line = next(line for line in text.splitlines() if line.startswith(f"  --{name} "))
        shown = str(field.default).lower() if field.type is bool else str(field.default)
        assert f"(default {shown or 'empty'}" in line
        assert field.metadata["unit"] in line


def test_a_setting_that_is_no_number_of_its_kind_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        count: int = setting(1, "how many", at_least=1)

    for wrong in (True, 1.0, "1", None):
        with pytest.raises(UserError, match="count must be a whole number ≥ 1"):
            validate(Settings(wrong))  # pyright: ignore[reportArgumentType]
    validate(Settings(1))


def ended(monkeypatch, capsys, *arguments):
    """Exit code, standard output and error of a command that trains nothing."""
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit) as stop:
        main("experiments.run", lambda _: 0)
    return stop.value.code, *capsys.readouterr()


def test_help_on_one_topic(monkeypatch, capsys):
    for topic in topics(Config):
        code, out, _ = ended(monkeypatch, capsys, f"--help={topic}")
        shown = {line.split()[0][2:] for line in out.splitlines() if line.startswith("  --")}
        assert code == 0 and shown == {
            name for name, (owner, _) in fields().items() if owner == topic
        }
    code, _, error = ended(monkeypatch, capsys, "--help=models")
    assert code == 2 and "help must be of one of data, model" in error and error.count("\n") == 1


def test_version(monkeypatch, capsys):
    code, out, _ = ended(monkeypatch, capsys, "--version")
    assert code == 0 and re.fullmatch(r"vae-jax \d+\.\d+\.\d+\n", out)


@dataclasses.dataclass(frozen=True)
class Place:
    run_dir: str = setting("", "where")


@dataclasses.dataclass(frozen=True)
class OnePlace:
    place: Place


def test_what_is_written_without_its_name_may_have_it():
    for arguments in (["here"], ["--run_dir=here"]):
        assert parse(arguments, OnePlace, "run_dir").place.run_dir == "here"
    for arguments in ([], ["a", "b"], ["a", "--run_dir=b"]):
        with pytest.raises(UserError, match="give one RUN_DIR; got"):
            parse(arguments, OnePlace, "run_dir")


def test_short_names_stand_for_what_there_is():
    assert set(suggest.FLAGS.values()) <= {*fields()}
    assert not set(suggest.FLAGS) & {*fields()}
    choices = {c for _, field in fields().values() for c in field.metadata["choices"]}
    assert set(suggest.VALUES.values()) <= choices | set(sources.NAMES)
