"""The rooms: an import runs downwards, and heavy packages stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vae_jax

ROOT = Path(vae_jax.__file__).parent

# From the ground up; a room imports from the lines above its own, and from itself.
ROOMS = [
    {"types", "settings"},
    {"files", "memory"},
    {"distributions", "networks", "parallel"},
    {"data", "plots"},
    {"models"},
    {"evaluation", "objectives"},
    {"training"},
    {"runs"},
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_used(path: Path) -> set[str]:
    named = {name.split(".")[1] for name in imports(path) if name.startswith("vae_jax.")}
    return (named & FLOOR.keys()) - {room_of(path)}


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} == FLOOR.keys()


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_arrows_point_down(room):
    for path in (path for path in FILES if room_of(path) == room):
        upwards = {used for used in rooms_used(path) if FLOOR[used] >= FLOOR[room]}
        assert not upwards, f"{path.relative_to(ROOT)} imports {upwards}"


def test_the_library_never_imports_experiments():
    assert not [p for p in FILES for name in imports(p) if name.split(".")[0] == "experiments"]


def test_only_networks_know_flax():
    knowing = {room_of(p) for p in FILES for n in imports(p) if n.split(".")[0] == "flax"}
    assert knowing == {"networks"}


def test_a_face_defines_nothing():
    for path in (path for path in FILES if path.name == "__init__.py"):
        kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)
        tree = ast.parse(path.read_text())
        assert all(isinstance(node, kinds) for node in tree.body), path


def test_importing_the_package_is_light():
    """Plotting, data set tools and learners are imported where they are used."""
    heavy = ("matplotlib", "tensorflow_datasets", "sklearn", "tensorflow", "torch")
    code = f"import sys, vae_jax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.stdout.strip() == "[]", done.stderr
