"""The layers: a file imports from lower layers only, and heavy packages only where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import vae_jax

LAYERS = [
    {"types", "settings"},
    {
        "files",
        "formats",
        "sprites",
        "plane",
        "devices",
        "processes",
        "schedules",
        "optimisers",
        "conditions",
        "latent_space",
        "placement",
        "sweep_means",
    },
    {"distributions", "streaming", "convolutions", "gradients", "disentanglement"},
    {"layers", "pixels", "aggregate", "draws", "fetch", "canvas"},
    {"networks", "tables", "batches", "latent_plots", "plane_plots", "rd_plane"},
    {"sources", "priors", "posteriors", "likelihoods", "posterior_plots"},
    {"doersch", "data", "plots"},
    {"model", "sweep_plots"},
    {"bounds", "evaluation", "annealing"},
    {"objectives"},
    {"training", "checkpoints", "trained", "masking"},
    {"packs"},
    {"runs", "sweeps"},
]
FLAX = {"layers"}  # the files that may know it
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROOT = Path(vae_jax.__file__).parent


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> list[Path]:
    return [path for path in ROOT.glob("*.py") if path.name != "__init__.py"]


def test_every_file_has_a_layer():
    assert {path.stem for path in modules()} == set(LEVEL)


def test_arrows_point_down():
    for path in modules():
        for name in imports(path):
            if name.startswith("vae_jax.") and name.split(".")[1] in LEVEL:
                target = name.split(".")[1]
                assert LEVEL[target] < LEVEL[path.stem], f"{path.stem} imports {target}"


def test_the_library_never_imports_experiments():
    assert not [p for p in modules() for name in imports(p) if name.split(".")[0] == "experiments"]


def test_only_networks_know_flax():
    assert {p.stem for p in modules() for n in imports(p) if n.split(".")[0] == "flax"} == FLAX


def test_importing_the_package_is_light():
    """Plotting, data set tools and learners are imported where they are used."""
    heavy = ("matplotlib", "tensorflow_datasets", "sklearn", "tensorflow", "torch")
    code = f"import sys, vae_jax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.stdout.strip() == "[]", done.stderr
