"""See `command`."""

import sys

import jax

from experiments.launch.command import main
from vae_jax.settings import UserError

if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # of this process alone: the GPUs are the runs'
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
