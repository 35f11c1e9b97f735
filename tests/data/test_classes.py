"""Labels are names of classes, whatever they are called, wherever they enter."""

import jax
import numpy as np
import pytest

import vae_jax
from experiments import plot
from experiments.cli.config import parse
from experiments.runner.job import assemble
from experiments.runner.run import perform
from vae_jax import data
from vae_jax.data import identity
from vae_jax.settings import UserError

X = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
CODES = np.arange(60) % 3
NAMED = {
    "0 to 2": (CODES, ("0", "1", "2")),
    "5, 9, 12": (np.array([5, 9, 12])[CODES], ("5", "9", "12")),
    "negative": (CODES - 1, ("-1", "0", "1")),
    "dates": (20231105 + CODES, ("20231105", "20231106", "20231107")),
    "beyond int32": (2**40 + CODES, tuple(str(2**40 + i) for i in range(3))),
    "texts": (np.array(["cat", "dog", "owl"])[CODES], ("cat", "dog", "owl")),
    "bytes": (np.array([b"cat", b"dog", b"owl"])[CODES], ("cat", "dog", "owl")),
    "a column": (CODES[:, None] + 1, ("1", "2", "3")),
}


@pytest.mark.parametrize("kind", NAMED)
def test_classes_are_those_that_occur(kind, tmp_path):
    labels, names = NAMED[kind]
    dataset = data.from_arrays(X, X[:12], labels, labels[:12])
    assert dataset.classes == names and dataset.num_classes == 3
    np.testing.assert_array_equal(dataset.train.y, CODES)
    np.testing.assert_array_equal(dataset.test.y, CODES[:12])
    assert dataset.train.y.dtype == np.int32
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=labels, x_test=X[:12], y_test=labels[:12])
    read = data.load(data.DataConfig(str(tmp_path / "mine.npz"), validation_size=0))
    assert read.classes == names
    np.testing.assert_array_equal(read.train.y, CODES)


def test_a_class_of_the_test_set_alone_is_a_class():
    dataset = data.from_arrays(X, X[:3], CODES + 7, np.array([7, 8, 30]))
    assert dataset.classes == ("7", "8", "9", "30")
    np.testing.assert_array_equal(dataset.test.y, [0, 1, 3])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (CODES / 2, "whole numbers or texts; got dtype float64"),
        (np.eye(3)[CODES], r"60 labels, as many as x; got shape \[60, 3\]"),
        (CODES[:59], "60 labels"),
        (np.array([None] * 60), "got dtype object"),
        (CODES.astype("datetime64[D]"), "got dtype datetime64"),
    ],
)
def test_what_names_no_class_is_one_line(labels, said):
    with pytest.raises(UserError, match=said) as error:
        data.from_arrays(X, y_train=labels)
    assert "\n" not in str(error.value)


def test_texts_here_and_numbers_there_are_refused():
    with pytest.raises(UserError, match="in all splits alike"):
        data.from_arrays(X, X[:3], CODES, np.array(["0", "1", "2"]))


def test_names_belong_to_what_a_data_set_is():
    """All labels one higher: the same classes in the same order, under other names."""
    one, other = (identity.describe(data.from_arrays(X, y_train=CODES + k)) for k in (1, 2))
    assert one["labels_sha256"] == other["labels_sha256"]
    assert identity.differences(one, other) == ["the labels are not the ones it was trained on"]
    assert identity.differences(one, one) == []


def test_a_label_for_nearly_every_image_is_no_class(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=np.arange(60))
    flags = [f"--dataset={tmp_path / 'mine.npz'}", "--condition=label", "--widths=4"]
    with pytest.raises(UserError, match=r"labels that are classes; got 60 of 49 images"):
        assemble(parse([*flags, "--batch_size=8"]))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A model of p(x|label) of cats, dogs and owls."""
    folder = tmp_path_factory.mktemp("labels")
    labels = NAMED["texts"][0]
    np.savez(folder / "pets.npz", x_train=X, y_train=labels, x_test=X[:12], y_test=labels[:12])
    flags = [f"--dataset={folder / 'pets.npz'}", "--condition=label", "--latent_dim=2",
             "--widths=4", "--steps=2", "--batch_size=8", "--nll_samples=2",
             f"--run_dir={folder / 'run'}"]  # fmt: skip
    assert perform(assemble(parse(flags))) == 0
    return folder / "run"


def test_a_run_knows_its_labels_by_name(run_dir):
    run = vae_jax.load(run_dir)
    assert run.classes == ("cat", "dog", "owl")
    batch = run.split(X[:3], ["owl", "cat", "dog"])
    np.testing.assert_array_equal(batch.condition, np.eye(3)[[2, 0, 1]])
    key = jax.random.key(0)
    owls = run.sample(key, 4, label="owl")
    np.testing.assert_array_equal(owls, run.sample(key, 4, np.eye(3, dtype=np.float32)[2]))
    mixed = run.sample(key, 2, label=["cat", "owl"])
    np.testing.assert_array_equal(mixed[1], run.sample(key, 2, label="owl")[1])
    for wrong in ("cow", 0, ["cat", "cow", "dog", "cat"]):
        with pytest.raises(UserError, match="some of cat, dog, owl; got"):
            run.sample(key, 4, label=wrong)
    with pytest.raises(UserError, match="each one of cat, dog, owl; got none"):
        run.split(X[:3])
    with pytest.raises(UserError, match="3 labels"):
        run.split(X[:3], ["cat"])


def test_a_run_without_labels_has_none_to_give(tmp_path):
    with pytest.raises(UserError, match="label is for a run with --condition=label"):
        from run_helpers import untrained

        untrained(tmp_path / "run")
        vae_jax.load(tmp_path / "run").sample(jax.random.key(0), 1, label=3)


def test_figures_name_the_classes(run_dir, tmp_path):
    config = parse([str(run_dir), "--digits=owl,cat", "--figures=latents"], plot.Config, "run")
    scene = plot.look(vae_jax.load(run_dir), config.plot)
    assert set(scene.labels) == {"cat", "owl"} and len(scene.labels) == 8
    latents = plot.FIGURES["latents"].draw(scene).axes[0]
    assert [t.get_text() for t in latents.get_legend().get_texts()] == ["cat", "owl"]
    rows = plot.FIGURES["samples"].draw(scene).axes[0]
    assert [t.get_text() for t in rows.get_yticklabels()] == ["cat", "dog", "owl"]
    wrong = parse([str(run_dir), "--digits=cow"], plot.Config, "run")
    with pytest.raises(UserError, match="labels of the test set: cat, dog, owl; got cow"):
        _ = plot.look(vae_jax.load(run_dir), wrong.plot).split
