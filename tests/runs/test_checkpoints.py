"""Checkpoints: what goes in comes out, a broken one is noticed, and none runs code."""

import json
import pickle
import warnings
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.runs import checkpoints
from vae_jax.settings import UserError


class State(NamedTuple):
    params: dict
    step: jax.Array


def state(step: int = 0, seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    params = {"a": {"kernel": rng.normal(size=(3, 4)).astype(np.float32)}, "b": np.float32(2)}
    return State(jax.tree.map(jnp.asarray, params), jnp.asarray(step, jnp.int32))


def same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    for step in (1, 5, 30, 200):
        checkpoints.save_checkpoint(tmp_path, state(step, seed=step), {"step": step, "name": "ü"})
    restored, meta = checkpoints.restore_checkpoint(tmp_path, state())
    assert same(restored, state(200, seed=200)) and meta == {"step": 200, "name": "ü"}
    assert [p.name for p in checkpoints.checkpoints(tmp_path)] == [
        "step-0000000200.npz",
        "step-0000000030.npz",
    ]


def test_nothing_there_is_none(tmp_path):
    assert checkpoints.restore_checkpoint(tmp_path, state()) is None


BREAKS = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "garbage": lambda data: b"not an archive" * 20,
    "zeroed start": lambda data: b"\0" * 64 + data[64:],
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_file_is_passed_over_with_a_warning(tmp_path, how):
    for step in (1, 2):
        path = checkpoints.save_checkpoint(tmp_path, state(step), {"step": step})
    path.write_bytes(BREAKS[how](path.read_bytes()))
    with pytest.warns(UserWarning, match=r"step-0000000002.npz is broken"):
        restored, meta = checkpoints.restore_checkpoint(tmp_path, state())
    assert same(restored, state(1)) and meta == {"step": 1}


def test_every_flipped_bit_in_the_data_is_noticed(tmp_path):
    """One flip in each 16 bytes of the newest file: either it is refused or nothing has changed."""
    checkpoints.save_checkpoint(tmp_path, state(1), {"step": 1})
    path = checkpoints.save_checkpoint(tmp_path, state(2), {"step": 2})
    whole = path.read_bytes()
    for position in range(0, len(whole), 16):
        broken = bytearray(whole)
        broken[position] ^= 4
        path.write_bytes(broken)
        try:
            tree, meta = checkpoints.load_arrays(path, state())
        except (UserError, *checkpoints.BROKEN):
            continue
        assert same(tree, state(2)) and meta == {"step": 2}


def test_any_flipped_bit_leads_to_a_good_state(tmp_path):
    """Of either checkpoint: names, headers and the archive's own tables included."""
    checkpoints.save_checkpoint(tmp_path, state(1), {"step": 1})
    path = checkpoints.save_checkpoint(tmp_path, state(2), {"step": 2})
    whole = path.read_bytes()
    for position in range(0, 8 * len(whole), 37):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << position % 8
        path.write_bytes(broken)
        with warnings.catch_warnings(record=True) as caught:
            restored, meta = checkpoints.restore_checkpoint(tmp_path, state())
        assert same(restored, state(meta["step"])) and meta["step"] == (1 if caught else 2)


def test_all_broken_is_an_error_in_one_line(tmp_path):
    checkpoints.save_checkpoint(tmp_path, state(1), {}).write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.restore_checkpoint(tmp_path, state())


@pytest.mark.parametrize(
    "like",
    [
        State({"a": {"kernel": jnp.zeros((3, 5))}, "b": jnp.float32(0)}, jnp.int32(0)),
        State({"a": {"kernel": jnp.zeros((3, 4), jnp.int32)}, "b": jnp.float32(0)}, jnp.int32(0)),
        State({"a": {"kernel": jnp.zeros((3, 4))}}, jnp.int32(0)),
        State(
            {"a": {"kernel": jnp.zeros((3, 4))}, "b": jnp.float32(0), "c": jnp.zeros(1)},
            jnp.int32(0),
        ),
    ],
)
def test_a_checkpoint_of_another_model_does_not_fit(tmp_path, like):
    checkpoints.save_checkpoint(tmp_path, state(1), {})
    with pytest.raises(UserError, match="does not fit"):
        checkpoints.restore_checkpoint(tmp_path, like)


class Exploit:
    def __reduce__(self):
        return exec, ("raise AssertionError('code from a checkpoint was run')",)


def write_archive(path, entries: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def npy(array, **options) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "checkpoints" / "step-0000000001.npz"
    evil = npy(np.array([Exploit()], dtype=object), allow_pickle=True)
    write_archive(path, {"a.npy": evil, ".meta.npy": npy(np.asarray("{}"))})
    with pytest.raises(UserError, match="does not fit"):
        checkpoints.load_arrays(path, {"a": jnp.zeros(1)})
    write_archive(path, {"a.npy": pickle.dumps(Exploit()), ".meta.npy": npy(np.asarray("{}"))})
    with pytest.raises(checkpoints.BROKEN):
        checkpoints.load_arrays(path, {"a": jnp.zeros(1)})


def test_a_bomb_is_refused_before_it_is_read(tmp_path):
    """A header that promises the right shape, followed by far more data than that."""
    path = tmp_path / "checkpoints" / "bomb.npz"
    head = npy(np.zeros(3, np.float32))
    write_archive(path, {"a.npy": head + b"\0" * 50_000_000, ".meta.npy": npy(np.asarray("{}"))})
    with pytest.raises(ValueError, match="expected 12"):
        checkpoints.load_arrays(path, {"a": jnp.zeros(3)})


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = checkpoints.save_checkpoint(tmp_path, state(1), {"step": 1})
    before = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save_checkpoint(tmp_path, state(1, seed=9), {"step": 1})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_meta_is_plain_json(tmp_path):
    path = checkpoints.save_checkpoint(tmp_path, state(3), {"step": 3, "best": None})
    with np.load(path, allow_pickle=False) as archive:
        assert json.loads(str(archive[".meta"])) == {"step": 3, "best": None}
        assert sorted(archive.files) == [".meta", "params/a/kernel", "params/b", "step"]
