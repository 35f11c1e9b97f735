"""What config.json says is checked at one door, by all that read it: UserError, or it is right."""

import copy
import json
import shutil

import pytest
from run_helpers import untrained

import vae_jax
from experiments import evaluate, plot
from experiments.cli import parse
from experiments.runner.run_directory import RunDirectory
from vae_jax import runs
from vae_jax.settings import UserError

WRONG = (None, [], {}, 3, -1, 2**63, 1.5, "", "\x1b[31m", "x" * 5000, True, [[]], {"a": {}})


def paths(node, at=()):
    """Every place in a JSON value."""
    yield at
    inner = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for name, value in inner:
        yield from paths(value, (*at, name))


def changed(node, at, value):
    if not at:
        return value
    node = copy.deepcopy(node)
    inside = node
    for name in at[:-1]:
        inside = inside[name]
    inside[at[-1]] = value
    return node


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("described") / "run"
    job = untrained(directory)
    return directory, job, json.loads((directory / "config.json").read_text())


def test_every_harmed_config_is_one_line_or_right(run, tmp_path):
    """Every node of a config replaced by every kind of thing, read by load and by --resume."""
    directory, _, config = run
    shutil.copytree(directory, tmp_path / "run")
    own, refused, tried = RunDirectory(tmp_path / "run", config), 0, 0
    for at in paths(config):
        for value in WRONG:
            text = json.dumps(changed(config, at, value))
            (tmp_path / "run/config.json").write_text(text)
            tried += 1
            for read in (lambda: runs.read_config(tmp_path / "run"), lambda: own.status(True)):
                try:
                    read()
                except UserError as error:
                    assert str(error).isprintable() and len(str(error)) < 1500, (at, value)
                    refused += 1
    assert tried > 1000 and refused > tried


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b"3", b"\xff\xfe{}", b"{}\x00", b'{"format": NaN}',
    b"[" * 10**5, b'{"a": 1, "a": 2}', b"x" * 2**21, '{"format": 2}'.encode("utf-16"),
])  # fmt: skip
def test_every_program_says_it_in_one_line(run, tmp_path, content):
    directory, _, config = run
    shutil.copytree(directory, tmp_path / "run")
    (tmp_path / "run/config.json").write_bytes(content)
    path = str(tmp_path / "run")
    doors = {
        "load": lambda: vae_jax.load(path),
        "resume": lambda: RunDirectory(tmp_path / "run", config).status(True),
        "evaluate": lambda: evaluate.main(parse([path], evaluate.Config, "run_dir")),
        "plot": lambda: plot.main(parse([path], plot.Config, "run")),
    }
    said = set()
    for name, door in doors.items():
        with pytest.raises(UserError) as error:
            door()
        assert str(error.value).isprintable(), name
        said.add(str(error.value))
    assert len(said) == 1


def test_a_run_of_another_version_is_one_clear_line(run, tmp_path):
    directory, _, config = run
    shutil.copytree(directory, tmp_path / "run")
    old = {name: value for name, value in config.items() if name != "format"}
    (tmp_path / "run/config.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match="another version"):
        vae_jax.load(tmp_path / "run")


def test_what_is_left_out_is_the_default(run, tmp_path):
    directory, _, config = run
    shutil.copytree(directory, tmp_path / "run")
    del config["settings"]["model"]["log_scale_bound"]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    read = vae_jax.load(tmp_path / "run").config["settings"]["model"]
    assert read["log_scale_bound"] == "soft"


OUTSIDE = """
import jax.numpy as jnp
from vae_jax.distributions import Normal
from vae_jax.types import Net

def wide(shapes, architecture):
    def apply(params, encode, c):
        return Normal(jnp.zeros(shapes.z), jnp.full(shapes.z, params["log_scale"]))
    return Net(lambda key: {"log_scale": jnp.ones(())}, apply)
"""


def test_code_from_outside_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
    import sys

    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "priors.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    untrained(tmp_path / "run", "--prior=mine.priors:wide")
    for name in ("mine", "mine.priors"):
        sys.modules.pop(name, None)
    for trust in ((), ("min",), ("mine.prior",), ("mine.priors:wide",)):
        with pytest.raises(UserError, match=r"--trust=mine\.priors"):
            vae_jax.load(tmp_path / "run", trust=trust)
        assert "mine.priors" not in sys.modules
    for trust in (("mine",), ["mine.priors"]):
        assert "log_scale" in vae_jax.load(tmp_path / "run", trust=trust).params["prior"]
