"""Strictness for every test: shapes and types checked at run time, no silent rank promotion."""

import os

# Nearly all of the suite is compiling: XLA need not optimise what runs once.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

from jaxtyping import install_import_hook

# Before anything imports the packages.
install_import_hook(["vae_jax", "experiments"], "strict.check")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs that several tests compile are compiled once."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Neither the network nor the data folder of whoever runs the tests."""
    from vae_jax.data import download

    monkeypatch.setattr(download, "reachable", lambda url, seconds=3.0: False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
