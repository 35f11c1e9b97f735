"""Train a VAE and see what it learned.

    python -m experiments.run --latent_dim=2

Leaves a run directory (see `vae_jax.runs`) with the trained weights, the test set's ELBO and
importance-weighted NLL in nats per image, and figures: the manifold, samples, reconstructions,
latents and training curves. About two minutes for 30 epochs of MNIST on two CPU cores.
"""

from experiments import cli
from experiments.cli.config import Config
from experiments.runner.job import assemble
from experiments.runner.run import perform


def main(config: Config) -> int:
    return perform(assemble(config))


if __name__ == "__main__":
    cli.main("experiments.run", main)
