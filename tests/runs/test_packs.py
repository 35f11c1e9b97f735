"""Packs: what goes in comes out, whatever the model; a hostile one is refused in one line."""

import json
import os
import pickle
import random
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from run_helpers import untrained
from test_checkpoints import Exploit, npy, same

import vae_jax
from experiments import pack as job
from experiments.cli.config import parse
from vae_jax import plots
from vae_jax.runs import packs
from vae_jax.settings import UserError

MODELS = {
    "mlp": ["--latent_dim=2"],
    "20 latents, full covariance": ["--latent_dim=20", "--posterior=full"],
    "conv": ["--network=conv", "--widths=2-3", "--latent_dim=3"],
    "cvae": ["--condition=left_half", "--prior=conditional", "--latent_dim=4"],
    "given the label": ["--condition=label"],
    "regressor": ["--condition=column", "--latent_dim=0"],
}


def pack(directory: Path, *flags: str) -> Path:
    untrained(directory, *flags)
    (directory / "figures").mkdir()
    plots.save(plots.samples(np.zeros((1, 2, 2, 1))), directory / "figures" / "samples.png")
    (directory / "figures" / "samples (1).png").write_text("somebody's own")
    (directory / "figures" / "curves.pdf").write_text("may hold code")
    assert job.main(parse([str(directory)], job.Config, "run_dir")) == 0
    return directory.with_name(f"{directory.name}.vae")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("packs") / "run")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(whole: Path, path: Path, changes: dict, compression: int = zipfile.ZIP_STORED) -> Path:
    """The pack with other members: name or ZipInfo -> bytes, or None to leave it out."""
    names = [getattr(name, "filename", name) for name in changes]
    kept = {name: data for name, data in members(whole).items() if name not in names}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (kept | changes).items():
            if data is not None:
                archive.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        packs.read_figures(path)
        vae_jax.load(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 400
    return text


# What goes in comes out


@pytest.mark.parametrize("name", MODELS)
def test_a_pack_is_the_run(tmp_path, name):
    path = pack(tmp_path / "run", *MODELS[name])
    run = vae_jax.load(tmp_path / "run")
    figure = (tmp_path / "run/figures/samples.png").read_bytes()
    shutil.rmtree(tmp_path / "run")
    packed = vae_jax.load(path)
    assert same(packed.params, run.params)
    assert (packed.config, packed.meta) == (run.config, run.meta)
    assert (packed.summary, packed.history) == ({"elbo": -50.0}, run.history)
    assert len(packed.history) == 2
    assert packs.read_figures(path) == {"samples": figure}  # nothing that might hold code
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_same_run_gives_the_same_bytes(tmp_path, whole):
    assert job.main(parse([str(whole)[:-4], f"--out={tmp_path / 'p'}"], job.Config, "run_dir")) == 0
    assert (tmp_path / "p").read_bytes() == whole.read_bytes()


def test_it_is_plain_arrays_and_json(whole):
    with zipfile.ZipFile(whole) as archive:
        with archive.open("weights/likelihood/Dense_0/linear/kernel.npy") as file:
            assert np.lib.format.read_array(file, allow_pickle=False).shape == (2, 8)
        assert json.loads(archive.read("config.json"))["dataset"]["name"] == "digits"
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_run_that_is_not_finished(tmp_path, capsys):
    untrained(tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    assert job.main(parse([str(tmp_path / "run")], job.Config, "run_dir")) == 0
    assert "0 figures; the run is not finished" in capsys.readouterr().out
    assert vae_jax.load(tmp_path / "run.vae").summary == {}


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


def renamed(name: str) -> dict:
    return {name: b"x"}


def link(name: str) -> dict:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return {info: b"/etc/passwd"}


def config(change) -> dict:
    """The change is made to a copy of the config of a whole pack."""
    return {"config.json": change}


def setting(topic: str, name: str, value) -> dict:
    return config(lambda c: c["settings"][topic].update({name: value}))


def data(**changes) -> dict:
    return config(lambda c: c["dataset"].update(changes))


def header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


ARRAY = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}"
KERNEL = "weights/likelihood/Dense_0/linear/kernel.npy"  # float32 [2, 8]
HOSTILE = {
    "a way out": (renamed("../../evil.py"), "a member called '../../evil.py'"),
    "a way out below": (renamed("weights/../../evil.npy"), "a member called"),
    "absolute": (renamed("/etc/cron.d/evil"), "a member called"),
    "backslashes": (renamed("..\\evil.png"), "a member called"),
    "another file": (renamed("setup.py"), "a member called"),
    "svg": (renamed("figures/evil.svg"), "a member called"),
    "a folder": (renamed("figures/"), "a member called"),
    "a link": (link("figures/evil.png"), "is no plain file"),
    "a link for config": (link("config.json"), "is no plain file"),
    "no picture": (renamed("figures/evil.png"), "does not describe"),
    "no config": ({"config.json": None}, "no config.json"),
    "no weights": ({KERNEL: None}, "in only one of the two"),
    "one array more": ({"weights/more.npy": npy(np.zeros(1))}, "in only one of the two"),
    "shape": ({KERNEL: npy(np.zeros((8, 2), np.float32))}, r"float32\[8, 2\], expected"),
    "dtype": ({KERNEL: npy(np.zeros((2, 8), np.float64))}, r"float64\[2, 8\], expected"),
    "objects": ({KERNEL: npy(np.array([Exploit()], object), allow_pickle=True)}, "expected"),
    "pickle": ({KERNEL: pickle.dumps(Exploit())}, "cannot be read"),
    "an open header": ({KERNEL: header("(")}, "no header of an array"),
    "an unhashable header": ({KERNEL: header("{[]: 1}")}, "no header of an array"),
    "a mixed header": ({KERNEL: header("{1: 2, 'a': 3}")}, "no header of an array"),
    "a deep header": ({KERNEL: header("[" * 4000)}, "no header of an array"),
    "no type": ({KERNEL: header(ARRAY.format("()", (2, 8)))}, "no header of an array"),
    "big-endian": ({KERNEL: header(ARRAY.format("'>f4'", (2, 8)))}, "expected"),
    "structured": ({KERNEL: header(ARRAY.format("[('a', 'f4')]", (2, 8)))}, "expected"),
    "a shape of terabytes": ({KERNEL: header(ARRAY.format("'<f4'", (2**40, 2**40)))}, "expected"),
    "a negative shape": ({KERNEL: header(ARRAY.format("'<f4'", (-2, -8)))}, "expected"),
    "a long shape": ({KERNEL: header(ARRAY.format("'<f4'", (1,) * 3000))}, "expected"),
    "a long header": ({KERNEL: b"\x93NUMPY\2\0\xff\xff\xff\xff{"}, "no header of an array"),
    "more than it says": ({KERNEL: npy(np.zeros((2, 8), np.float32)) + b"x"}, "65 bytes"),
    "less than it says": ({KERNEL: npy(np.zeros((2, 8), np.float32))[:-1]}, "63 bytes"),
    "not JSON": ({"config.json": b"\xff{"}, "cannot be read"),
    "a list": ({"config.json": b"[]"}, "does not describe"),
    "deep": ({"config.json": b"[" * 100_000}, "cannot be read"),
    "deep metrics": ({"metrics.jsonl": b'{"a":' * 100_000}, "cannot be read"),
    "no time": ({"metrics.jsonl": b'{"step": 1, "epoch": null}\n'}, "does not describe"),
    "beyond any axis": ({"metrics.jsonl": b'{"step": 1, "epoch": 1e308}\n'}, "does not describe"),
    "a long step": ({"metrics.jsonl": b'{"epoch": 1, "step": ' + b"9" * 4000 + b"}\n"},
        "does not describe"),
    "many rows": ({"metrics.jsonl": b"[]\n" * 3_000_000}, "claims 9,000,000 bytes"),
    "rows of text": ({"metrics.jsonl": b'{"step": "1", "epoch": 1}\n'}, "does not describe"),
    "a summary of text": ({"summary.json": b'"very good"'}, "does not describe"),
    "checkpoint": ({"checkpoint.json": b'{"step": 1}'}, "does not describe"),
    "large JSON": ({"summary.json": b" " * (2**20 + 1)}, "claims 1,048,577 bytes"),
    "many digits": ({"config.json": b"1" * 10_000}, "cannot be read"),
    "NaN": (setting("model", "initial_bias", float("nan")), "must be finite; got NaN"),
    "infinity": (setting("training", "learning_rate", float("inf")), "must be finite"),
    "beyond float": ({"config.json": b'{"settings": 1e999}'}, "must be finite; got 1e999"),
    "unknown": (setting("model", "hook", "os.system"), "unexpected keyword argument 'hook'"),
    "unknown in training": (setting("training", "hook", 1), "unexpected keyword"),
    "no such network": (setting("model", "network", "../net"), "network must be one of"),
    "a text for a number": (setting("model", "latent_dim", "2"), "does not describe"),
    "a list for a text": (setting("model", "widths", [8]), "does not describe"),
    "a seed of text": (setting("data", "data_seed", "0"), "does not describe"),
    "deep network": (setting("model", "widths", "1-" * 600 + "1"), "a text of 1,201 letters"),
    "many layers": (setting("model", "widths", "1-" * 400 + "1"), "does not describe"),
    "wide network": (setting("model", "widths", "9" * 9), "expected"),
    "wider than any": (setting("model", "widths", "9" * 30), "expected"),
    "latents": (setting("model", "latent_dim", 10**9), "expected"),
    "covariances": (config(lambda c: c["settings"]["model"].update(
        latent_dim=10**6, posterior="full")), "expected"),
    "integer": (setting("model", "latent_dim", 10**30), "more than 63 bits"),
    "huge images": (data(x_shape=[2**20, 2**20, 1]), "does not describe"),
    "negative images": (data(x_shape=[-8, -8, 1]), "does not describe"),
    "images of true": (data(x_shape=[True, 8, 8]), "does not describe"),
    "classes": (config(lambda c: (c["dataset"].update(num_classes=10**18),
        c["settings"]["model"].update(condition="label"))), "does not describe"),
    "a topic of text": (config(lambda c: c["settings"].update(run="x")), "does not describe"),
    "no fingerprint": (config(lambda c: c["dataset"].pop("sha256")), "does not describe"),
    "no settings": (config(lambda c: c.pop("settings")), "does not describe"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pack_is_refused_in_one_line(tmp_path, whole, case):
    changes, message = HOSTILE[case]
    change = changes.get("config.json")
    if callable(change):
        described = json.loads(members(whole)["config.json"])
        change(described)
        changes = {"config.json": json.dumps(described)}
    path = changed(whole, tmp_path / "p", changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert re.search(message, refusal(path)), refusal(path)
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_what_is_in_it_twice(tmp_path, whole):
    path = Path(shutil.copy(whole, tmp_path))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    assert "'config.json' is in it twice" in refusal(path)


def test_what_is_in_it_very_often(tmp_path, whole):
    """A hundred thousand times, and counted at once."""
    path = tmp_path / "p"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members(whole).items():
            archive.writestr(name, content)
        archive.filelist += [archive.getinfo("config.json")] * 100_000
    assert "'config.json' is in it twice" in refusal(path)


def test_a_setting_left_out_is_the_default(tmp_path, whole):
    """As in a run of a version that did not have it."""
    described = json.loads(members(whole)["config.json"])
    seed = described["settings"]["data"].pop("data_seed")
    path = changed(whole, tmp_path / "p", {"config.json": json.dumps(described)})
    assert vae_jax.load(path).config["settings"]["data"]["data_seed"] == seed


def test_a_bomb(tmp_path, whole):
    """50 MB of zeros deflate to 50 kB; stored, a member may still claim what others have."""
    zeros = npy(np.zeros((2, 8), np.float32)) + bytes(50_000_000)
    path = changed(whole, tmp_path / "p", {KERNEL: zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6 and "is compressed" in refusal(path)


def test_members_that_overlap(tmp_path, whole):
    """The same data under many names: small as a file, large when read."""
    path = tmp_path / "p"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members(whole).items():
            archive.writestr(name, content)
        archive.writestr("figures/a.png", bytes(10**6))
        for i in range(9):
            again = zipfile.ZipInfo(f"figures/a{i}.png")
            for name in ("file_size", "compress_size", "CRC", "header_offset"):
                setattr(again, name, getattr(archive.getinfo("figures/a.png"), name))
            archive.filelist.append(again)
    assert "claim more bytes than it has" in refusal(path)


def test_encrypted(tmp_path, whole):
    content = bytearray(whole.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + at] |= 1
    (tmp_path / "p").write_bytes(content)
    assert "encrypted" in refusal(tmp_path / "p")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a pack" * 99, bytes(10**5)])
def test_no_pack_at_all(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    assert "cannot be read as a pack" in refusal(tmp_path / "p")


def outcome(path: Path):
    try:
        run = vae_jax.load(path)
        return run, packs.read_figures(path)
    except UserError as error:
        assert "\n" not in str(error)
        return None


def test_truncated_anywhere(tmp_path, whole):
    content = whole.read_bytes()
    for size in range(0, len(content), len(content) // 40):
        (tmp_path / "p").write_bytes(content[:size])
        assert outcome(tmp_path / "p") is None


def test_random_bytes_anywhere(tmp_path, whole):
    """Refused, or still the same run: checksums leave nothing in between."""
    content, rng = whole.read_bytes(), random.Random(0)
    run, figures = vae_jax.load(whole), packs.read_figures(whole)
    central = content.index(b"PK\1\2")  # the archive's tables, where flips matter most
    for turn in range(60):
        broken = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            broken[rng.randrange(central if turn % 3 == 0 else 0, len(content))] = rng.randrange(
                256
            )
        (tmp_path / "p").write_bytes(broken)
        found = outcome(tmp_path / "p")
        if found:
            assert same(found[0].params, run.params) and found[1] == figures
            assert (found[0].config, found[0].history) == (run.config, run.history)


# The command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "run_dir must be a run directory"),
        (["."], "config.json does not exist"),
        (["RUN", "--out=no/such/p"], "out must be a file in a folder"),
        (["RUN", "--out=."], "out must be a file"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, whole, flags, message):
    monkeypatch.chdir(tmp_path)
    flags = [flag.replace("RUN", str(whole)[:-4]) for flag in flags]
    with pytest.raises(UserError, match=message):
        job.main(parse(flags, job.Config, "run_dir"))
    assert not list(tmp_path.iterdir())


def test_a_pack_has_one_checkpoint(whole):
    with pytest.raises(UserError, match="one checkpoint, called best; got 'last'"):
        vae_jax.load(whole, checkpoint="last")
    assert jax.tree.leaves(vae_jax.load(whole).params)
