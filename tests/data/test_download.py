"""Fetching: what is downloaded is what was meant, once, whoever asks; what cannot be had is a line.

Tests of the real files need VAE_JAX_TEST_DATA (see test_data).
"""

import contextlib
import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from data_helpers import load, one_line, real
from idx import write_idx_set

from experiments import cli, prepare_data
from vae_jax.data import download, sources
from vae_jax.data.split import DataError

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("no_network")


def test_reachable_gives_up_in_time(monkeypatch):
    monkeypatch.undo()
    import requests

    def hang(*args, **kwargs):
        time.sleep(30)

    start = time.monotonic()
    monkeypatch.setattr(requests, "head", hang)
    assert not download.reachable("http://example.invalid/", seconds=0.2)
    assert time.monotonic() - start < 1
    for status in (200, 403, 503):
        answer = type("Answer", (), {"status_code": status})
        monkeypatch.setattr(requests, "head", lambda *a, answer=answer, **k: answer)
        assert download.reachable("http://example.invalid/") == (status == 200)


def test_without_a_network_the_answer_comes_within_five_seconds(tmp_path, monkeypatch):
    """The real attempt, through a proxy that nobody answers for: as without a network."""
    monkeypatch.undo()
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    start = time.monotonic()
    with pytest.raises(DataError, match="cannot be reached"):
        load(tmp_path, "mnist")
    assert load(tmp_path, "auto").name == "digits"
    assert time.monotonic() - start < 5


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self, urls):
        raise OSError("no space left\nsecond line")

    monkeypatch.setattr(download, "reachable", lambda url: True)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", fail)
    with pytest.raises(DataError, match="no space left") as error:
        load(tmp_path, "mnist")
    assert "second" not in one_line(error)
    assert "no space left" in load(tmp_path, "auto").fallback


@contextlib.contextmanager
def serving(folder: Path, delay: float = 0.0):
    """A web server of our own for the files of a folder: its addresses with size and sha256, and
    the list of what it is asked for.
    """
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            time.sleep(delay)
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, infos = f"http://127.0.0.1:{server.server_port}/", {}
        for path in sorted(folder.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            infos[address + path.name] = (path.stat().st_size, digest, path.name)
        yield infos, asked
        server.shutdown()


@contextlib.contextmanager
def instead(infos, monkeypatch):
    """tensorflow-datasets believes that its data sets are at these addresses."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo

    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    known = {url: UrlInfo(*info) for url, info in infos.items()}
    builder = type("Builder", (), {"url_infos": known})
    monkeypatch.setattr(tfds, "builder_cls", lambda name: builder)
    yield


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder of original files on a server, which tensorflow-datasets will ask."""
    folder = tmp_path / "server"
    write_idx_set(folder, 12, 5, seed=1, size=6)
    with serving(folder) as (infos, _), instead(infos, monkeypatch):
        yield folder


def test_download_is_kept_for_the_next_time(served, tmp_path):
    first = load(tmp_path, "mnist")
    assert first.source == f"{tmp_path}, downloaded by tensorflow-datasets"
    shutil.rmtree(served)
    shutil.rmtree(tmp_path / "downloads")
    again = load(tmp_path, "mnist")
    assert again.source == f"{tmp_path / 'mnist'}, original files"
    np.testing.assert_array_equal(first.train.x, again.train.x)


def test_download_with_a_wrong_checksum_is_refused(served, tmp_path):
    path = served / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="wrong checksum") as error:
        load(tmp_path, "mnist")
    one_line(error)
    assert not (tmp_path / "mnist").exists()


def test_original_files_of_every_set_are_downloaded(tmp_path, monkeypatch):
    """Those that are not needed are not: Omniglot has small1 and small2 as well."""
    folder = tmp_path / "server"
    folder.mkdir()
    names = {
        "binarized_mnist": [f"binarized_mnist_{s}.amat" for s in ("train", "valid", "test")],
        "omniglot": ["images_background.zip", "images_evaluation.zip"],
    }
    for name in (*names["binarized_mnist"], *names["omniglot"], "images_background_small1.zip"):
        (folder / name).write_bytes(name.encode())
    with serving(folder) as (infos, asked), instead(infos, monkeypatch):
        for dataset, files in names.items():
            asked.clear()
            found = download.download(dataset, tmp_path, files)
            assert sorted(asked) == sorted(f"/{name}" for name in files)
            for name in files:
                assert found[name] == tmp_path / dataset / name
                assert found[name].read_bytes() == name.encode()
            asked.clear()
            shutil.rmtree(tmp_path / "downloads")
            assert download.download(dataset, tmp_path, files) == found
            assert not asked  # as where another process has come first


@pytest.mark.parametrize("right", [True, False])
def test_a_file_with_an_md5_of_its_own(tmp_path, monkeypatch, right):
    folder = tmp_path / "server"
    folder.mkdir()
    imgs = np.eye(40, 64 * 64, dtype=np.uint8).reshape(40, 64, 64)
    classes = np.tile(np.arange(2), (6, 20)).T
    np.savez(folder / sources._DSPRITES, imgs=imgs, latents_classes=classes)
    md5 = hashlib.md5((folder / sources._DSPRITES).read_bytes()).hexdigest()
    with serving(folder) as (infos, asked), instead({}, monkeypatch):
        (url,) = infos
        monkeypatch.setattr(sources, "_DSPRITES_URLS", {url: md5 if right else "0" * 32})
        if right:
            assert len(load(tmp_path, "dsprites", validation_size=0).train.x) == 36
            asked.clear()
            assert "original files" in load(tmp_path, "dsprites").source and not asked
        else:
            with pytest.raises(DataError, match="is damaged"):
                load(tmp_path, "dsprites")
            assert not (tmp_path / "dsprites").exists()


AT_ONCE = """
import json, os, sys
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from experiments import cli, prepare_data
infos, folder = json.loads(sys.argv[1]), sys.argv[2]
infos = {url: UrlInfo(*info) for url, info in infos.items()}
tfds.builder_cls = lambda name: type("Builder", (), {"url_infos": infos})
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        sys.argv = ["prepare_data", "mnist", "--data_dir", folder]
        try:
            cli.main("experiments.prepare_data", prepare_data.main, prepare_data.Config, "name")
        except SystemExit as end:
            os._exit(end.code)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def test_many_at_once_download_once(tmp_path):
    folder = tmp_path / "server"
    write_idx_set(folder, 12, 5, seed=1, size=6)
    with serving(folder, delay=0.3) as (infos, asked):
        command = [sys.executable, "-W", "ignore", "-c", AT_ONCE, json.dumps(infos), tmp_path / "d"]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    assert sorted(asked) == sorted(f"/{path.name}" for path in folder.iterdir())  # each file once
    names = [path.name for path in (tmp_path / "d" / "mnist").iterdir()]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())  # and nothing unfinished
    assert len(load(tmp_path / "d", "mnist", validation_size=0).train.x) == 12


def test_locked_holds_others_off(tmp_path):
    order = []

    def second():
        with download.locked(tmp_path / "a" / ".lock"):
            order.append("second")

    with download.locked(tmp_path / "a" / ".lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    (tmp_path / "file").touch()
    with download.locked(tmp_path / "file" / ".lock"):  # no folder, no lock, no error
        pass


# The command line ---------------------------------------------------------------------------------


def prepare(monkeypatch, *arguments):
    """The exit code of experiments.prepare_data."""
    monkeypatch.setattr(sys, "argv", ["prepare_data", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main("experiments.prepare_data", prepare_data.main, prepare_data.Config, "name")
    return end.value.code


def test_command_prepares_a_set(served, tmp_path, capfd, monkeypatch):
    folder = tmp_path / "new" / "folder"
    assert prepare(monkeypatch, "mnist", f"--data_dir={folder}") == 0
    said = capfd.readouterr().out.splitlines()[-1]
    assert said.startswith("mnist, 6×6×1: 11 train, 1 valid, 5 test images; ")
    shutil.rmtree(served)
    assert prepare(monkeypatch, "mnist", "--data_dir", str(folder)) == 0
    assert "original files" in capfd.readouterr().out


@pytest.mark.parametrize(("arguments", "expected"), [
    ([], "give one NAME"),
    (["mnist", "extra"], "give one NAME"),
    (["mnist", "--data_dri=x"], "Did you mean: data_dir"),
    (["auto"], "one data set"),
    (["cifar"], "dataset must be"),
    (["missing.npz"], "missing.npz does not exist"),
    (["mnist", "--data_dir=FILE/x"], "cannot be made"),
    (["mnist"], "cannot be reached"),
])  # fmt: skip
def test_command_says_what_is_wrong_in_one_line(tmp_path, capfd, monkeypatch, arguments, expected):
    (tmp_path / "FILE").touch()
    arguments = [argument.replace("FILE", str(tmp_path / "FILE")) for argument in arguments]
    assert prepare(monkeypatch, *arguments) == 2
    out, error = capfd.readouterr()
    assert not out and error.startswith("error: ") and error.count("\n") == 1 and expected in error


def test_command_from_a_shell():
    command = [sys.executable, "-m", "experiments.prepare_data", "digits"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "digits, 8×8×1: 1,350 train, 150 valid, 297 test images; scikit-learn\n"
    assert (done.returncode, done.stderr) == (0, "")


# The real files -----------------------------------------------------------------------------------


def seed_cache(name: str, originals: Path, data_dir: Path) -> list[Path]:
    """Puts the original files where tensorflow-datasets would have kept its downloads."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource

    paths = []
    for url, info in tfds.builder_cls(name).url_infos.items():
        path = data_dir / "downloads" / name / resource.get_dl_fname(url, info.checksum)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(originals / info.filename, path)
        paths.append(path)
    return paths


def test_download_cache_is_used_without_a_network(tmp_path, capfd):
    originals = real("mnist")
    seed_cache("mnist", originals, tmp_path)
    (tmp_path / "mnist").mkdir()  # as a copy that was interrupted would leave it
    shutil.copy(originals / "train-labels-idx1-ubyte.gz", tmp_path / "mnist")
    dataset = load(tmp_path, "auto")
    assert dataset.name == "mnist" and not dataset.fallback
    assert "downloaded by tensorflow-datasets" in dataset.source
    names = sorted(path.name for path in (tmp_path / "mnist").iterdir())
    assert names == sorted(path.name for path in originals.iterdir())
    shutil.rmtree(tmp_path / "downloads")
    again = load(tmp_path, "mnist")
    assert "original files" in again.source
    for split in range(2, 5):
        np.testing.assert_array_equal(dataset[split].x, again[split].x)
    assert capfd.readouterr() == ("", "")


def test_download_cache_serves_where_nothing_can_be_copied(tmp_path, monkeypatch):
    originals = real("mnist")
    for path in seed_cache("mnist", originals, tmp_path)[:2]:  # as older versions laid them out
        path.rename(tmp_path / "downloads" / path.name)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    dataset = load(tmp_path, "mnist")
    np.testing.assert_array_equal(dataset.test.x, load(originals, "mnist").test.x)
    assert not list((tmp_path / "mnist").iterdir())


def test_damaged_download_is_an_error_that_names_it(tmp_path):
    damaged = seed_cache("mnist", real("mnist"), tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged") as error:
        load(tmp_path, "auto")
    assert str(damaged) in one_line(error)


def copy_prepared(prepared: Path, folder: Path, sizes: dict[str, int]) -> None:
    """The first images of a set prepared by tensorflow-datasets, as another such set."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    folder.mkdir(parents=True)
    info = json.loads((prepared / "dataset_info.json").read_text())
    for split in info["splits"]:
        size = sizes[split["name"]]
        split["shardLengths"] = [str(size)]
        file = f"mnist-{split['name']}.array_record-00000-of-00001"
        reader = ArrayRecordReader(str(prepared / file))
        writer = ArrayRecordWriter(str(folder / file), "group_size:1")
        for record in reader.read(0, size):
            writer.write(record)
        writer.close()
    (folder / "dataset_info.json").write_text(json.dumps(info))
    shutil.copy(prepared / "features.json", folder)


@pytest.fixture
def prepared(tmp_path):
    """A data folder with a small set prepared by tensorflow-datasets, and where the set is."""
    whole = real("tfds") / "mnist" / "3.0.1"
    if not importlib.util.find_spec("array_record"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs array_record")
    folder = tmp_path / "prepared" / "mnist" / "3.0.1"
    copy_prepared(whole, folder, {"train": 60, "test": 25})
    return folder


def test_prepared_set_holds_the_original_images(prepared, capfd):
    dataset = load(prepared.parents[1], validation_size=0)
    assert dataset.source == f"{prepared}, prepared by tensorflow-datasets"
    assert "tensorflow" not in sys.modules and capfd.readouterr() == ("", "")
    original = load(real("mnist"), validation_size=0)
    for got, want, size in ((dataset.train, original.train, 60), (dataset.test, original.test, 25)):
        assert got.x.shape == (size, 28, 28, 1) and got.x.dtype == np.uint8
        label = {x.tobytes(): y for x, y in zip(*want[:2], strict=True)}
        assert [label[x.tobytes()] for x in got.x] == list(got.y) and got.y.dtype == np.int32


def test_newest_prepared_set_that_can_be_read_is_taken(prepared):
    older = prepared.with_name("3.0.9")
    shutil.copytree(prepared, older)
    prepared.rename(prepared.with_name("3.0.10"))
    assert "3.0.10" in load(prepared.parents[1]).source
    info = prepared.with_name("3.0.10") / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))  # needs TensorFlow
    (prepared.with_name("3.0.11.incompleteABC")).mkdir()
    assert "3.0.9" in load(prepared.parents[1]).source
    shutil.rmtree(older)
    with pytest.raises(DataError, match="cannot be reached"):
        load(prepared.parents[1])


@pytest.mark.parametrize("kind", ["lost shard", "cut shard", "lost info", "no json"])
def test_damaged_prepared_set_is_an_error_that_names_it(prepared, kind):
    shard, info = next(prepared.glob("*test*")), prepared / "dataset_info.json"
    if kind == "cut shard":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    elif kind == "no json":
        info.write_text("{")
    else:
        (shard if kind == "lost shard" else info).unlink()
    with pytest.raises(DataError, match="cannot be read") as error:
        load(prepared.parents[1], "auto")
    assert str(prepared) in one_line(error)
