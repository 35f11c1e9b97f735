"""Well-known systems as sets of flag values; a flag that is given itself wins.

`--model` says what is modelled, `--preset` how a paper or a code did it.
"""

from typing import Any

from vae_jax.data import sources
from vae_jax.models import MODELS, ModelConfig
from vae_jax.objectives.config import ObjectiveConfig
from vae_jax.settings import UserError, is_outside, unread
from vae_jax.training.state import TrainConfig

Values = dict[str, Any]

# Values of --model that stand for others: p(x), p(x|c) with latents, p(x|c) without. What each asks
# of condition and latents, whatever the nets are.
SHORTCUTS: dict[str, Values] = {
    "vae": {"condition": "none"},
    "cvae": {"condition": "column"},
    "regressor": {"condition": "column", "latent_dim": 0},
}

PRESETS: dict[str, Values] = {
    # cdoersch/vae_tutorial (Doersch 2016): Caffe nets and solver. Its momentum is unset, so β₁ = 0.
    "doersch": {
        "dataset": "mnist",
        "model": "doersch",
        "log_scale_bound": "none",
        "latent_dim": 30,
        "binarisation": "none",
        "validation_size": 0,
        "batch_size": 100,
        "steps": 60_000,
        "optimiser": "adam_hat",
        "learning_rate": 1e-3,
        "beta1": 0.0,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "l2": 5e-4,
    },
    # oduerr/dl_tutorial, tensorflow/vae/vae_demo.ipynb: 55,000 grey digits in the plane.
    "oduerr": {
        "dataset": "mnist",
        "log_scale_bound": "none",
        "latent_dim": 2,
        "widths": "500-501",
        "decoder_widths": "500-501",
        "activation": "softplus",
        "initialiser": "truncated_normal",
        "initial_scale": 0.1,
        "initial_bias": 0.1,
        "binarisation": "none",
        "validation_size": 5000,
        "batch_size": 64,
        "epochs": 200,
        "optimiser": "adam_hat",
        "learning_rate": 1e-3,
        "manifold_grid": "linspace",
        "figures": "all",
    },
    # oduerr/dl_tutorial, tensorflow/vae/vae_demo-2D.ipynb: points in the plane, one latent. There
    # every step has fresh points, and scales have no floor. After 2,000 steps thirteen of sixteen
    # seeds use the latent, 1 among them and 0 not; after 4,000 all do.
    "oduerr_arc": {
        "log_scale_bound": "none",
        "dataset": "arc",
        "latent_dim": 1,
        "widths": "5-6",
        "decoder_widths": "5-6",
        "activation": "softplus",
        "initialiser": "truncated_normal",
        "initial_scale": 0.1,
        "initial_bias": 0.1,
        "likelihood": "gaussian",
        "likelihood_scale": "per_pixel",
        "scale_floor": 1e-4,
        "binarisation": "none",
        "validation_size": 0,
        "batch_size": 640,
        "steps": 2000,
        "optimiser": "adam_hat",
        "learning_rate": 0.01,
        "seed": 1,
        "manifold_grid": "linspace",
    },
    # Kingma & Welling (2014), §5, MNIST. They chose Adagrad's step size from 0.01, 0.02 and 0.1 by
    # the loss at the start; here that means 0.01: the larger ones blow up in the first epoch. The
    # prior N(0, I) on weights is, in nats per image, an L2 of 1/60,000; 10⁸ images in all.
    "kingma": {
        "dataset": "mnist",
        "log_scale_bound": "none",
        "latent_dim": 20,
        "widths": "500",
        "activation": "tanh",
        "initialiser": "normal",
        "initial_scale": 0.01,
        "validation_size": 0,
        "batch_size": 100,
        "steps": 1_000_000,
        "optimiser": "adagrad",
        "learning_rate": 0.01,
        "l2": 1 / 60_000,
    },
    # Burda, Grosse & Salakhutdinov (2016), §5 and yburda/iwae, one stochastic layer, k = 5.
    "iwae": {
        "dataset": "mnist",
        "log_scale_bound": "none",
        "objective": "iwae",
        "num_samples": 5,
        "latent_dim": 50,
        "widths": "200-200",
        "activation": "tanh",
        "initialiser": "glorot",
        "output_bias": "data_mean",
        "validation_size": 0,
        "batch_size": 20,
        "epochs": 3280,
        "schedule": "iwae",
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-4,
    },
}


def resolve(preset: str, given: Values) -> Values:
    """The flag values that a preset and the flags given beside it amount to.

    Raises UserError with one line where they contradict each other.
    """
    model = given.get("model", "")
    if preset and preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    if model and model not in (*SHORTCUTS, *MODELS) and not is_outside(model):
        known = ", ".join((*SHORTCUTS, *MODELS))
        raise UserError(f"model must be one of {known}, or package.module:name; got {model!r}")
    of_preset = PRESETS.get(preset, {})
    values = {**of_preset, **SHORTCUTS.get(model, {}), **given}
    if "likelihood" not in values and values.get("dataset") in sources.DRAWN:
        values["likelihood"] = "gaussian"  # these are points, and the default is of pixels
    if model in SHORTCUTS:
        values["model"] = of_preset.get("model", "standard")
    replaceable = of_preset.keys() - given.keys()
    for config in (ModelConfig, ObjectiveConfig, TrainConfig) if replaceable else ():
        for name in unread(config, values) & replaceable:
            del values[name]  # a preset's setting of a part that a flag has put another in place of
    if "epochs" in given and "steps" not in given:
        values.pop("steps", None)  # a preset's length gives way to the one asked for
    _check_shortcut(model, values.get("condition", "none"), values.get("latent_dim"))
    return values


def _check_shortcut(model: str, condition: str, latent_dim: Any) -> None:
    """UserError where flags contradict what --model=vae, cvae or regressor stands for."""
    if model == "vae" and condition != "none":
        raise UserError(f"model vae has no condition, cvae and regressor have; got {condition}")
    if model in ("cvae", "regressor") and condition == "none":
        raise UserError(f"model {model} needs a condition; got none")
    if model == "regressor" and latent_dim:
        raise UserError(f"model regressor has latent_dim 0; got {latent_dim}")
    if model in ("vae", "cvae") and latent_dim == 0:
        raise UserError(f"model {model} has latents: latent_dim must be at least 1; got 0")
