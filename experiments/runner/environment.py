"""Versions, code and device: what a number depends on besides the settings."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from vae_jax.evaluation import PRECISION


def environment() -> dict[str, Any]:
    packages = ("vae-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "git_commit": _git_commit(),
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
        "matmul_precision": {
            "training": jax.config.jax_default_matmul_precision or "default",  # pyright: ignore[reportAttributeAccessIssue]
            "evaluation": PRECISION,
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """The commit of the source tree this package is in, "-dirty" if changed; "" outside git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed package inside somebody else's repository
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
