"""Packs: what goes in comes out, whatever the model; a hostile one is refused in one line."""

import copy
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from run_helpers import untrained
from test_checkpoints import same

import vae_jax
from experiments import pack as job
from experiments.cli.config import parse
from vae_jax.settings import UserError

MODELS = {
    "mlp": ["--latent_dim=2"],
    "20 latents, full covariance": ["--latent_dim=20", "--posterior=full"],
    "conv": ["--network=conv", "--widths=2-3", "--latent_dim=3"],
    "cvae": ["--condition=left_half", "--prior=conditional", "--latent_dim=4"],
    "given the label": ["--condition=label"],
    "regressor": ["--condition=column", "--latent_dim=0"],
}
KERNEL = "likelihood/Dense_0/linear/kernel"


def pack(directory: Path, *flags: str) -> Path:
    untrained(directory, *flags)
    assert job.main(parse([str(directory)], job.Config, "run_dir")) == 0
    return directory.with_name(f"{directory.name}.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("packs") / "run")


def split(path: Path) -> tuple[dict, bytes]:
    """The header of a safetensors file, and the bytes of its arrays."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def join(path: Path, header: dict | bytes, arrays: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + arrays)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        vae_jax.load(path)
    text = str(error.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < 500, text
    return text


# What goes in comes out


@pytest.mark.parametrize("name", MODELS)
def test_a_pack_is_the_run(tmp_path, name):
    path = pack(tmp_path / "run", *MODELS[name])
    run = vae_jax.load(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    packed = vae_jax.load(path)
    assert same(packed.params, run.params)
    assert (packed.config, packed.meta) == (run.config, run.meta)
    assert (packed.summary, packed.history) == ({"elbo": -50.0}, run.history)
    assert len(packed.history) == 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_whatever_reads_safetensors_reads_it(whole):
    from safetensors.numpy import load_file

    arrays = load_file(whole)
    assert arrays[KERNEL].shape == (2, 8) and arrays[KERNEL].dtype == np.float32
    metadata = split(whole)[0]["__metadata__"]
    assert json.loads(metadata["config"])["dataset"]["name"] == "digits"
    assert [row["step"] for row in json.loads(metadata["history"])] == [1, 2]


def test_a_run_that_is_not_finished(tmp_path, capsys):
    untrained(tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    assert job.main(parse([str(tmp_path / "run")], job.Config, "run_dir")) == 0
    assert "; the run is not finished" in capsys.readouterr().out
    assert vae_jax.load(tmp_path / "run.safetensors").summary == {}


def test_a_run_of_a_long_name(tmp_path):
    directory = tmp_path / ("ü" * 127)
    untrained(directory)
    assert job.main(parse([str(directory)], job.Config, "run_dir")) == 0
    (path,) = tmp_path.glob("*.safetensors")
    assert vae_jax.load(path).meta["step"] == 2


def test_it_opens_where_there_is_nothing_else(tmp_path, whole):
    """Another process and folder: the library alone, no experiments, one decoded image."""
    code = "import sys, vae_jax; r = vae_jax.load('p'); x = r.decode([[0.0, 0.0]])"
    code += "; print(x.shape, 'experiments' in sys.modules)"
    shutil.copy(whole, tmp_path / "p")
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "(1, 8, 8, 1) False\n", done.stderr


# What is refused


def config(**changes):
    """A change of the config: "settings.model.widths" -> value."""

    def change(header, arrays):
        told = json.loads(header["__metadata__"]["config"])
        for name, value in changes.items():
            at = told
            *path, last = name.split("__")
            for part in path:
                at = at[part]
            at[last] = value
        header["__metadata__"]["config"] = json.dumps(told)
        return header, arrays

    return change


def metadata(name, text):
    return lambda header, arrays: (
        {**header, "__metadata__": {**header["__metadata__"], name: text}}, arrays
    )  # fmt: skip


def entry(name=KERNEL, **changes):
    return lambda header, arrays: ({**header, name: {**header[name], **changes}}, arrays)


def without(name):
    return lambda header, arrays: ({k: v for k, v in header.items() if k != name}, arrays)


def numbers(value):
    """Every array full of one number."""
    return lambda header, arrays: (header, np.full(len(arrays) // 4, value, "<f4").tobytes())


CASES = {
    "no metadata": (without("__metadata__"), "no pack of a run"),
    "no config": (lambda h, a: ({**h, "__metadata__": {"config": "{}"}}, a), "no pack of a run"),
    "other metadata": (metadata("more", "{}"), "no pack of a run"),
    "config is no JSON": (metadata("config", "{"), "cannot be read as a pack"),
    "config is a list": (metadata("config", "[]"), "does not describe a run"),
    "deep": (metadata("config", "[" * 10**5), "cannot be read as a pack"),
    "NaN in it": (metadata("summary", '{"elbo": NaN}'), "must be finite"),
    "infinity in it": (metadata("history", '[{"step": 1, "epoch": 1e999}]'), "must be finite"),
    "a name twice": (metadata("summary", '{"a": 1, "a": 2}'), "there twice"),
    "a long integer": (metadata("summary", '{"a": 1' + "0" * 99 + "}"), "integer of 100 digits"),
    "history is no list": (metadata("history", "{}"), "does not describe a run"),
    "a row without step": (metadata("history", '[{"epoch": 1}]'), "does not describe a run"),
    "a row of text": (metadata("history", '[{"step": "1", "epoch": 1}]'), "not describe a run"),
    "checkpoint": (metadata("checkpoint", '{"step": "2"}'), "does not describe a run"),
    "another version": (config(format=1), "another version"),
    "no format": (config(format=None), "another version"),
    "settings are null": (config(settings=None), "does not describe a run"),
    "model is a number": (config(settings__model=3), "does not describe a run"),
    "a setting unknown": (config(settings__model__sparkle=3), "does not describe a run"),
    "an escape": (config(settings__model__widths="\x1b[31m"), "widths must be"),
    "an escape in a name": (config(**{"settings__model__\x1b[2J": 1}), "does not describe a run"),
    "a setting wrong": (config(settings__model__latent_dim=-1), "latent_dim must be"),
    "a list in a setting": (config(settings__model__widths=["8"]), "does not describe a run"),
    "a long text": (config(settings__data__dataset="x" * 2000), "does not describe a run"),
    "many layers": (config(settings__model__widths="-".join(["9"] * 200)), "not describe a run"),
    "wide layers": (config(settings__model__widths="999999999"), "does not fit"),
    "huge images": (config(dataset__x_shape=[10**6, 10**6, 1]), "does not describe a run"),
    "negative images": (config(dataset__x_shape=[-8, 8, 1]), "does not describe a run"),
    "flat images": (config(dataset__x_shape=[64, 1]), "does not describe a run"),
    "many classes": (config(dataset__num_classes=2**40), "does not describe a run"),
    "code from outside": (config(settings__model__prior="os:system"), "trust"),
    "an array missing": (without(KERNEL), "does not fit this model"),
    "an array more": (lambda h, a: ({**h, "x": h[KERNEL]}, a), "does not fit this model"),
    "a lying shape": (entry(shape=[8, 2]), "does not fit this model"),
    "a huge shape": (entry(shape=[2**40, 8]), "does not fit this model"),
    "a negative shape": (entry(shape=[-2, -8]), "does not fit this model"),
    "another type": (entry(dtype="I32"), "does not fit this model"),
    "no type": (entry(dtype=None), "does not fit this model"),
    "offsets beyond": (entry(data_offsets=[0, 2**40]), ""),
    "offsets that overlap": (entry(data_offsets=[0, 64]), ""),
    "an entry of text": (lambda h, a: ({**h, KERNEL: "x"}, a), "does not fit this model"),
    "too short": (lambda h, a: (h, a[:-1]), "not whole"),
    "too long": (lambda h, a: (h, a + b"x"), "not whole"),
    "not a number": (numbers(np.nan), "not finite"),
    "infinite": (numbers(np.inf), "not finite"),
    "a header of text": (lambda h, a: (b"hello", a), "cannot be read as a pack"),
    "a header of bytes": (lambda h, a: (b"\xff\xfe", a), "cannot be read as a pack"),
    "a list": (lambda h, a: (b"[]", a), "cannot be read as a pack"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_pack_is_refused_in_one_line(tmp_path, whole, case):
    change, message = CASES[case]
    path = join(tmp_path / "pack", *change(*copy.deepcopy(split(whole))))
    assert message in refusal(path)


@pytest.mark.parametrize("content", [
    b"", b"x", b"\x00" * 8, b"\xff" * 8, b"\xff" * 100, b"PK\x03\x04" + bytes(60),
])  # fmt: skip
def test_no_pack_at_all(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    refusal(tmp_path / "p")


def test_a_pack_of_before(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.vae", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "version 0.1" in refusal(tmp_path / "old.vae")


def test_truncated_anywhere(tmp_path, whole):
    raw = whole.read_bytes()
    for size in random.Random(0).sample(range(len(raw)), 40):
        (tmp_path / "p").write_bytes(raw[:size])
        refusal(tmp_path / "p")


def test_random_bytes_anywhere(tmp_path, whole):
    """Either it loads, with finite weights, or it is one line."""
    raw, rng = whole.read_bytes(), random.Random(0)
    for _ in range(150):
        harmed = bytearray(raw)
        for at in rng.sample(range(len(raw)), rng.choice([1, 5, 50])):
            harmed[at] = rng.randrange(256)
        (tmp_path / "p").write_bytes(harmed)
        try:
            run = vae_jax.load(tmp_path / "p")
        except UserError as error:
            assert str(error).isprintable()
        else:
            assert all(np.isfinite(a).all() for a in run.params["likelihood"]["Dense_0"].values()
                       if isinstance(a, np.ndarray))  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), [
    (["/no/such"], "run_dir must be a run directory"),
    (["RUN", "--out=/"], "out must be a file in a folder that exists"),
    (["RUN", "--out=/no/such/p"], "out must be a file in a folder that exists"),
    (["RUN", "--out=/proc/p"], "/proc/p cannot be written"),
])  # fmt: skip
def test_bad_input(tmp_path, whole, flags, message):
    flags = [flag.replace("RUN", str(whole.with_suffix(""))) for flag in flags]
    with pytest.raises(UserError, match=message) as error:
        job.main(parse(flags, job.Config, "run_dir"))
    assert "\n" not in str(error.value)


def test_a_pack_has_one_checkpoint(whole):
    with pytest.raises(UserError, match="holds one checkpoint"):
        vae_jax.load(whole, "last")
