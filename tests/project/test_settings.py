"""A setting stands with the entry that reads it: flags, help and what does nothing follow."""

import dataclasses
import sys

import pytest

from experiments import cli
from vae_jax import settings
from vae_jax.models import ModelConfig
from vae_jax.settings import UserError, choice, setting, validate, with_entries


@dataclasses.dataclass(frozen=True)
class Warm:
    heat: float = setting(1.0, "how warm", above=0)

    def __post_init__(self):
        validate(self)

    def build(self, x):
        return self.heat * x


@dataclasses.dataclass(frozen=True)
class Warmer(Warm):
    layers: int = setting(2, "how many", at_least=1)


INNER = {"warm": Warm, "warmer": Warmer, "plain": lambda x: x}


@dataclasses.dataclass(frozen=True)
class Box:
    inner: object = choice("plain", INNER, "what is inside")

    def build(self, x):
        return settings.build(settings.chosen(self, "inner"), x)


@dataclasses.dataclass(frozen=True)
@with_entries
class Config:
    always: int = setting(3, "read whatever is chosen")
    outer: str = choice("box", {"box": Box, "none": lambda x: -x}, "the outside")

    def __post_init__(self):
        validate(self)


def value(config):
    return settings.build(settings.chosen(config, "outer"), 10)


def test_settings_of_entries_are_settings_of_the_configuration():
    names = [field.name for field in settings.settings_of(Config)]
    assert names == ["always", "outer", "inner", "heat", "layers"]
    assert value(Config()) == 10
    assert value(Config(inner="warm", heat=0.5)) == 5
    assert value(Config(outer="none")) == -10


@pytest.mark.parametrize("given, line", [
    ({"heat": 2.0}, "heat does nothing for inner plain, only for warm, warmer"),
    ({"layers": 3, "inner": "warm"}, "layers does nothing for inner warm, only for warmer"),
    ({"inner": "warm", "outer": "none"}, "inner does nothing for outer none, only for box"),
    ({"heat": 2.0, "outer": "none"}, "does nothing for outer none, only for inner warm, warmer"),
    ({"inner": "cold"}, "must be one of warm, warmer, plain, or package.module:name; got 'cold'"),
    ({"inner": "warm", "heat": 0.0}, "heat must be a finite number > 0; got 0.0"),
    ({"inner": 3}, "inner must be one of warm, warmer, plain; got 3"),
    ({"inner": "no_such_module_x:y"}, "no_such_module_x:y cannot be imported"),
    ({"inner": "math:no_such"}, "math:no_such: the module math has no no_such"),
])  # fmt: skip
def test_what_does_nothing_is_one_line(given, line):
    with pytest.raises(UserError) as error:
        Config(**given)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_an_entry_itself_may_be_given():
    assert value(Config(inner=Warm(heat=3.0))) == 30
    assert Box(inner="warm").build(10) == 10
    assert Box(inner=Warm(heat=3.0)).build(10) == 30


def test_two_of_a_name_are_the_same_setting():
    @dataclasses.dataclass(frozen=True)
    class Other:
        heat: float = setting(2.0, "another heat")

    class Both:
        inner: str = choice("warm", {"warm": Warm, "other": Other}, "what")

    with pytest.raises(AssertionError, match="two of heat"):
        with_entries(Both)


OUTSIDE = """
import dataclasses
from vae_jax.distributions import StudentT
from vae_jax.settings import setting, validate
from vae_jax.types import Net
import jax.numpy as jnp

def plain(shapes, architecture):
    return student(shapes, 5.0)

def student(shapes, dof):
    def apply(params, encode, c):
        return StudentT(jnp.zeros(shapes.z), jnp.zeros(()), jnp.float32(dof))
    return Net(lambda key: {}, apply)

@dataclasses.dataclass(frozen=True)
class Heavy:
    tail_dof: float = setting(4.0, "degrees of freedom", above=2)
    def __post_init__(self):
        validate(self)
    def build(self, shapes, architecture):
        return student(shapes, self.tail_dof)
"""


@pytest.fixture
def my_priors(tmp_path, monkeypatch):
    (tmp_path / "my_priors.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_priors", None)
    settings.extended.cache_clear()
    yield
    sys.modules.pop("my_priors", None)


def test_an_entry_from_outside_brings_its_settings_to_the_command_line(my_priors):
    config = cli.parse(["--prior=my_priors:Heavy", "--tail_dof=7"]).model
    assert (config.prior, config.tail_dof) == ("my_priors:Heavy", 7.0)
    assert dataclasses.asdict(config)["tail_dof"] == 7.0
    again = settings.make(ModelConfig, dataclasses.asdict(config))
    assert again == config and settings.chosen(again, "model").prior.tail_dof == 7.0
    assert cli.parse(["--prior=my_priors:plain"]).model.prior == "my_priors:plain"
    for flags, line in (
        (["--tail_dof=7"], "Unknown command line flag"),
        (["--prior=my_priors:Heavy", "--tail_dof=1"], "tail_dof must be a finite number > 2"),
        (["--prior=my_priors:nothing"], "the module my_priors has no nothing"),
    ):
        with pytest.raises(UserError, match=line):
            cli.parse(flags)


def test_help_says_which_entries_read_a_setting():
    text = " ".join(cli.usage("experiments.run").split())
    at = text.index("--likelihood_scale ")
    assert "[likelihood gaussian, laplace]" in text[at : at + 600]
