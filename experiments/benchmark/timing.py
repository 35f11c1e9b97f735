"""How long is timed: the benchmarks' own flags, beside those of `experiments.run`."""

import dataclasses

from experiments.cli.config import Config
from vae_jax.settings import setting, validate


def parse_image(text: str) -> tuple[int, int, int]:
    """'28x28x1' -> (28, 28, 1). Raises ValueError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError("height, width and channels joined by x, such as 28x28x1")
    height, width, channels = map(int, parts)
    return height, width, channels


@dataclasses.dataclass(frozen=True)
class TimingConfig:
    rounds: int = setting(7, "rounds that are timed, after one that compiles", at_least=1)
    steps_timed: int = setting(100, "steps of a round", unit="steps", at_least=1)
    conv_steps: int = setting(
        5, "steps of a round of the convolutional networks; 0 leaves them out",
        unit="steps", at_least=0,
    )  # fmt: skip
    timed_nll_samples: int = setting(
        5000, "samples an image of the timed NLL", unit="samples", at_least=1
    )
    model_steps: int = setting(
        10, "steps of a round of `benchmark.models`", unit="steps", at_least=1
    )
    image: str = setting(
        "28x28x1", "height, width and channels of the images of `benchmark.models`",
        parse=parse_image,
    )  # fmt: skip
    members: int = setting(16, "members of the sweep", at_least=1)
    starts: int = setting(5, "processes that time the imports", at_least=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(Config):
    """An experiment, of which only the speed is asked."""

    timing: TimingConfig = TimingConfig()
