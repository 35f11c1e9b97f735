"""Many groups of latents, inferred from the top down along the path that also generates.

    p(z) = Π_l p(z_l|z_<l),    q(z|x) = Π_l q(z_l|z_<l, x),    z = (z_1, …, z_L), from the top down

A first pass goes from the image up and keeps what each block says; a second goes down, and at each
group reads p(z_l|z_<l) from its state, q(z_l|z_<l, x) from its state and what the image says there,
and adds z_l to the state (Sønderby et al. 2016; Kingma et al. 2016; the block is Child's 2021). The
rate is the sum of the groups' KL in closed form, each given the z above it.

Equal groups stand in one array of parameters and are scanned: one group is compiled, not twenty.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions import Distribution, Normal, distribution, kl, static
from vae_jax.models.vae import VAE, Draw
from vae_jax.networks.ladder import repeated
from vae_jax.types import Array, Key, Net, Params, Scalar, Shape


class Stage(NamedTuple):
    """`groups` groups of one resolution; state, z: the shapes of the path and of one group's z.

    up: what a block of the way up adds. p: state -> mean and log scale of p(z_l|z_<l), and what it
    adds to the state. q: state, what the image says -> mean and log scale. add: z -> what it adds.
    down: state -> what a block after it adds. These hold parameters for all groups, stacked.
    enter: c -> what it adds where the stage begins. coarser: the state of the way up as the finer
    stage left it (of the finest stage, x and c) -> this stage's.
    """

    groups: int
    state: Shape
    z: Shape
    up: Net
    p: Net
    q: Net
    add: Net
    down: Net
    enter: Net
    coarser: Net


STACKED, SINGLE = ("up", "p", "q", "add", "down"), ("enter", "coarser")


@dataclasses.dataclass(frozen=True)
class Path:
    """Both ways through the stages, the top one first; see the module's docstring.

    bound: of log scales. remat: what a group computes is computed again for the gradient and not
    kept: less memory for more arithmetic.
    """

    stages: tuple[Stage, ...]
    bound: Callable[[Array], Array]
    remat: bool = False

    def init(self, key: Key) -> Params:
        """Of all stages, and the state at the top."""
        params: Params = {"top": jnp.zeros(self.stages[0].state, jnp.float32)}
        for i, stage in enumerate(self.stages):
            keys = jax.random.split(jax.random.fold_in(key, i), len(STACKED + SINGLE))
            nets = {name: getattr(stage, name) for name in STACKED + SINGLE}
            params[f"stage{i}"] = {
                name: net.init(k) for (name, net), k in zip(nets.items(), keys, strict=True)
            }
        return params

    def split(self, values: Sequence[Any] | Array) -> list[Any]:
        """One value a group, as one array a stage."""
        parts, start = [], 0
        for stage in self.stages:
            some, start = values[start : start + stage.groups], start + stage.groups
            parts.append(jnp.stack(some) if isinstance(some, tuple) else some)
        return parts

    def up(self, params: Params, x: Any, c: Any) -> list[Array]:
        """What the image says to each group: an array for each stage."""
        said, inputs = [], (x, c)
        for i, stage in reversed(list(enumerate(self.stages))):
            own = params[f"stage{i}"]
            h = stage.coarser.apply(own["coarser"], *inputs)

            def block(h: Array, own: Params, stage: Stage = stage) -> tuple[Array, Array]:
                h += stage.up.apply(own, h)
                return h, h

            h, kept = self._each(block, h, own["up"], stage.groups)
            said.append(kept[::-1])
            inputs = (h,)
        return said[::-1]

    def down(
        self, params: Params, c: Any, said: list[Array] | None, inputs: list[Any],
        choose: Callable[..., Array], terms: Callable[..., Any],
    ) -> tuple[Array, tuple[Array, ...], Any]:  # fmt: skip
        """The state at the end, z, and the terms of each group, [groups] each.

        said: as `up` gives it, None for the prior alone. choose(d, input) is z_l, of d = q or, of
        the prior alone, p. terms(p, q, z_l): p and q as if they were of one vector.
        """
        state, z, found = params["top"], [], []
        for i, stage in enumerate(self.stages):
            own = params[f"stage{i}"]
            if stage.state != state.shape:
                state = repeated(state, stage.state[0] // state.shape[0])
            if c.size:
                state += jnp.broadcast_to(stage.enter.apply(own["enter"], c), state.shape)
            stacked = {name: own[name] for name in STACKED if name != "up"}

            def group(state: Array, group: Any, stage: Stage = stage) -> tuple[Array, Any]:
                return self._group(stage, state, *group, choose=choose, terms=terms)

            xs = (stacked, None if said is None else said[i], inputs[i])
            state, (zs, terms_of_z) = self._each(group, state, xs, stage.groups)
            z += [zs[j] for j in range(stage.groups)]
            found.append(terms_of_z)
        return state, tuple(z), jax.tree.map(lambda *a: jnp.concatenate(a), *found)

    def _group(
        self, stage: Stage, state: Array, own: Params, said: Array | None, input: Any, *,
        choose: Callable[..., Array], terms: Callable[..., Any],
    ) -> tuple[Array, tuple[Array, Any]]:  # fmt: skip
        """One group: its z, and the state after it."""
        size = stage.z[-1]
        mean, log_scale, added = jnp.split(stage.p.apply(own["p"], state), [size, 2 * size], -1)
        p = q = Normal(mean, self.bound(log_scale))
        if said is not None:
            mean, log_scale = jnp.split(stage.q.apply(own["q"], state, said), 2, -1)
            q = Normal(mean, self.bound(log_scale))
        z = choose(q, input)
        state += added + stage.add.apply(own["add"], z)
        state += stage.down.apply(own["down"], state)
        return state, (z, terms(*jax.tree.map(jnp.ravel, (p, q)), jnp.ravel(z)))

    def _each(self, f: Callable[..., Any], state: Array, xs: Any, count: int) -> tuple[Array, Any]:
        """f(state, x) -> (state, y) of each x in turn."""
        f = jax.checkpoint(f) if self.remat else f
        if count > 1:
            return jax.lax.scan(f, state, xs)
        state, y = f(state, jax.tree.map(lambda a: a[0], xs))
        return state, jax.tree.map(lambda a: a[None], y)


def _given(d: Normal, z: Array) -> Array:
    return z


def _sampled(d: Normal, key: Key) -> Array:
    return d.sample(key)


def _nothing(p: Normal, q: Normal, z: Array) -> tuple[()]:
    return ()


def _log_prob(p: Normal, q: Normal, z: Array) -> Scalar:
    """Of q, which is p where there is nothing else."""
    return q.log_prob(z)


def _costs(p: Normal, q: Normal, z: Array) -> tuple[Scalar, Scalar, Scalar]:
    return p.log_prob(z), q.log_prob(z), kl(q, p, jax.random.key(0))


@distribution
class TopDown(Distribution):
    """p(z|c) or, with what the image says, q(z|x,c), of all groups of a ladder."""

    params: Any
    c: Any
    said: list[Array] | None
    path: Path = static()

    def _walk(self, inputs: Sequence[Any] | Array, choose: Any, terms: Any) -> Any:
        split = self.path.split(inputs)
        return self.path.down(self.params, self.c, self.said, split, choose, terms)[1:]

    def _keys(self, key: Key) -> Array:
        return jax.random.split(key, sum(stage.groups for stage in self.path.stages))

    def sample(self, key: Key) -> tuple[Array, ...]:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[tuple[Array, ...], Scalar]:
        z, log_p = self._walk(self._keys(key), _sampled, _log_prob)
        return z, jnp.sum(log_p)

    def log_prob(self, x: tuple[Array, ...]) -> Scalar:
        return jnp.sum(self._walk(x, _given, _log_prob)[1])

    def cooled(self, key: Key, temperature: Any) -> tuple[Array, ...]:
        def choose(d: Normal, key: Key) -> Array:
            return d.mean + temperature * (d.sample(key) - d.mean)

        return self._walk(self._keys(key), choose, _nothing)[0]

    def redrawn(self, key: Key, z: tuple[Array, ...], kept: Any) -> tuple[Array, ...]:
        def choose(d: Normal, given: Any) -> Array:
            key, z, fixed = given
            return jnp.where(fixed, z, d.sample(key))

        parts = (self._keys(key), z, jnp.arange(len(z)) < kept)
        inputs = [*zip(*map(self.path.split, parts), strict=True)]
        return self.path.down(self.params, self.c, self.said, inputs, choose, _nothing)[1]


def ladder(path: Path, likelihood: Net) -> VAE:
    """The VAE of the stages of a path and a net of (params, state, c) for p(x|z,c)."""

    def init(key: Key) -> Params:
        of_path, of_likelihood = jax.random.split(key)
        return {"path": path.init(of_path), "likelihood": likelihood.init(of_likelihood)}

    def posterior(params: Params, x: Any, c: Any) -> TopDown:
        return TopDown(params["path"], c, path.up(params["path"], x, c), path)

    def prior(params: Params, c: Any) -> TopDown:
        return TopDown(params["path"], c, None, path)

    def pixels(params: Params, state: Array, c: Any) -> Any:
        return likelihood.apply(params["likelihood"], state, c)

    def decode(params: Params, z: Any, c: Any) -> Any:
        z = path.split(z)
        return pixels(params, path.down(params["path"], c, None, z, _given, _nothing)[0], c)

    def draw(params: Params, key: Key, x: Any, c: Any) -> Draw:
        q = posterior(params, x, c)
        keys = path.split(q._keys(key))
        state, z, terms = path.down(params["path"], c, q.said, keys, _sampled, _costs)
        log_p, log_q, rates = terms
        log_x = pixels(params, state, c).log_prob(x)
        return Draw(z, log_x, jnp.sum(log_p), jnp.sum(log_q), jnp.sum(rates), rates)

    return VAE(init, posterior, decode, prior, draw)
