"""A ladder by its settings: groups of latents, dense or at places of the image.

The mathematics is in `top_down`. Between resolutions a place's latents see the image through
products of patches and 3 × 3 convolutions; of one place, or dense, there are only products.
"""

import dataclasses
import itertools

import jax

from vae_jax.models.scales import Bounded
from vae_jax.models.standard import WithLikelihood
from vae_jax.models.top_down import Path, Stage, ladder
from vae_jax.models.vae import VAE
from vae_jax.networks import Architecture, Arithmetic, from_linen, mlp
from vae_jax.networks.ladder import Block, Coarser, Linear, Pixels, Vector, stacked
from vae_jax.settings import UserError, build, chosen, setting
from vae_jax.types import Array, Net, Shape, Shapes


def parse_groups(text: str) -> tuple[tuple[int, int], ...]:
    """'2x7-3x14' -> ((2, 7), (3, 14)); '5' -> ((5, 0),), without places. Raises ValueError."""
    try:
        parts = [part.split("x") for part in text.split("-")]
        if len(parts) == 1 and len(parts[0]) == 1:
            groups = [(int(text), 0)]
        else:
            groups = [(int(count), int(rows)) for count, rows in parts]
    except ValueError:
        groups = [(0, 0)]
    rows = [r for _, r in groups]
    rising = all(a and b > a and b % a == 0 for a, b in itertools.pairwise(rows))
    if min(count for count, _ in groups) < 1 or not rising or ("x" in text and not rows[0]):
        raise ValueError(
            "a number of groups, such as 5, or so many at so many rows from the top down, each a "
            "multiple of the one before, such as 2x7-3x14"
        )
    return tuple(groups)


@dataclasses.dataclass(frozen=True)
class Ladder(Bounded, WithLikelihood, Arithmetic):
    """Dense, or with latents at places of the image at several resolutions."""

    groups: str = setting(
        "3", "ladder: how many groups of latents, dense; or how many at so many rows of the image, "
        "from the top down, such as 2x7-3x14", parse=parse_groups,
    )  # fmt: skip
    group_latents: int = setting(
        8, "ladder: latents of a group, or of each place of it", at_least=1
    )
    channels: int = setting(
        0, "ladder: numbers of its path, or at each place of it; 0: 256, or 64", at_least=0
    )
    remat: str = setting(
        "auto", "ladder: whether groups are computed again for the gradient, not kept; auto: where "
        "convolutions are products of patches, which are large: on CPUs",
        choices=("auto", "on", "off"),
    )  # fmt: skip

    @property
    def described(self) -> str:
        """The model in a few words, for people."""
        return f"groups {self.groups} of {self.group_latents} latents, path of {self.width}"

    @property
    def width(self) -> int:
        return self.channels or (64 if "x" in self.groups else 256)

    def build(self, shapes: Shapes) -> VAE:
        groups = parse_groups(self.groups)
        _check(groups, shapes.x)
        total = sum(count for count, _ in groups)
        finer = [rows for _, rows in groups[1:]] + [0]
        stages = [
            self._stage(shapes, count, rows, above, total)
            for (count, rows), above in zip(groups, finer, strict=True)
        ]
        patched = "x" in self.groups and jax.default_backend() == "cpu"
        again = patched if self.remat == "auto" else self.remat == "on"
        pixels = Architecture(mlp(()).encoder, self._pixels)  # an encoder is not asked for
        likelihood = build(chosen(self, "likelihood"), shapes._replace(z=stages[-1].state), pixels)
        return ladder(Path(tuple(stages), self.bound, again), likelihood)

    def _stage(self, shapes: Shapes, count: int, rows: int, finer: int, total: int) -> Stage:
        """finer: the rows of the next stage, 0 of the last."""
        place = (rows, shapes.x[1] * rows // shapes.x[0]) if rows else ()
        state, z = (*place, self.width), (*place, self.group_latents)
        kernel = 3 if rows > 1 else 1
        middle = self.width // 4 if kernel > 1 else self.width
        last = total**-0.5  # so that the path's scale does not grow with its length

        def block(features: int, scale: float, *inputs: Shape) -> Net:
            module = Block(features, max(middle, 1), kernel, scale, self.dtype)
            return stacked(module, count, *inputs)

        size = 2 * self.group_latents
        return Stage(
            count, state, z,
            up=block(self.width, last, state),
            p=block(size + self.width, 0.0, state),
            q=block(size, 1.0, state, state),
            add=stacked(Linear(self.width, last, self.dtype), count, z),
            down=block(self.width, last, state),
            enter=from_linen(Vector(self.width, self.dtype), [shapes.c]),
            coarser=self._coarser(shapes, rows, finer),
        )  # fmt: skip

    def _coarser(self, shapes: Shapes, rows: int, finer: int) -> Net:
        """What a stage of the way up begins with: the next finer stage's, or the image."""
        if not rows:
            return from_linen(Vector(self.width, self.dtype), [shapes.x, shapes.c])
        height, width = shapes.x[:2]
        if finer:
            below = [(finer, width * finer // height, self.width)]
        else:
            finer, below = height, [shapes.x, shapes.c]
        return from_linen(Coarser(self.width, finer // rows, self.dtype), below)

    def _pixels(
        self, shapes: list[Shape], output: Shape, image: Shape = (), start: Array | None = None
    ) -> Net:
        """The decoder of a likelihood: the path's end, which has seen c."""
        net = from_linen(Pixels(output, image, start, self.dtype), shapes[:1])
        return Net(net.init, lambda params, state, c: net.apply(params, state))


def _check(groups: tuple[tuple[int, int], ...], x: Shape) -> None:
    """UserError where the image has no such rows."""
    coarse = [rows for _, rows in groups if rows]
    if coarse and len(x) != 3:
        raise UserError(f"groups at rows of the image need images; got x of shape {x}")
    rows = [r for r in range(1, x[0] + 1) if x[0] % r == 0 and x[1] * r % x[0] == 0]
    if not set(coarse) <= set(rows):
        known = ", ".join(map(str, rows))
        raise UserError(f"groups must be at some of {known} rows of images {x}; got {coarse}")
