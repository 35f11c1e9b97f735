"""What somebody may have meant by a flag, or by a value, that there is not: case, short names."""

import difflib
from collections.abc import Iterable

# Names that other programs and papers use -> the flag here
FLAGS = {
    "lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "data": "dataset",
    "z_dim": "latent_dim", "latent_size": "latent_dim", "latents": "latent_dim", "z": "latent_dim",
    "dim": "latent_dim", "hidden": "widths", "layers": "widths", "hidden_dims": "widths",
    "optimizer": "optimiser", "n_epochs": "epochs", "num_epochs": "epochs", "k": "num_samples",
    "weight_decay": "l2", "out": "run_dir", "out_dir": "run_dir", "output_dir": "run_dir",
    "log_dir": "run_dir", "loss": "objective", "kl_weight": "beta", "binarization": "binarisation",
}  # fmt: skip
# The same of values
VALUES = {
    "vae": "elbo", "normal": "gaussian", "cnn": "conv", "fashion": "fashion_mnist",
    "fashionmnist": "fashion_mnist",
}  # fmt: skip


def flag(name: str, known: Iterable[str]) -> str:
    """The flag that is most like this one, "" where none is."""
    return _nearest(name, known, FLAGS)


def value(text: str, choices: Iterable[str]) -> str:
    """The value that is most like this one, "" where none is."""
    return _nearest(text, choices, VALUES)


def _nearest(word: str, known: Iterable[str], short: dict[str, str]) -> str:
    """By case and hyphens, then by a short name, then by spelling."""
    known = list(known)
    plain = {_plain(name): name for name in known}
    found = plain.get(_plain(word), "") or short.get(_plain(word), "")
    if found in known:
        return found
    close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else ""


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
