"""The changes that docs/library.md shows: made in a copy, trained, held to what they claim."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text()
NEW = dict(re.findall(r"```python (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))
LINES = re.findall(r"```python (\S+\.py): (\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.search(r"### All of them\n\n```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()


def test_each_is_one_new_file_and_one_line_of_a_registry():
    assert len(NEW) == len(LINES) == 7
    for name, text in NEW.items():
        assert not (ROOT / name).exists()
        assert len(text.splitlines()) < 75
    for name, registry, line in LINES:
        assert re.search(rf"^{registry}\b.*{{\n", (ROOT / name).read_text(), re.MULTILINE)
        assert len(line.splitlines()) == 1


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The library with all seven."""
    root = tmp_path_factory.mktemp("library")
    for folder in ("vae_jax", "experiments"):
        shutil.copytree(ROOT / folder, root / folder)
    for name, text in NEW.items():
        (root / name).write_text(text)
    for name, registry, line in LINES:
        path = root / name
        change = rf"^({registry}\b.*{{\n)"
        path.write_text(re.sub(change, r"\1" + line, path.read_text(), flags=re.MULTILINE))
    return root


SMALL = ["--epochs=2", "--nll_samples=5", "--batch_size=64", "--validation_size=100"]


@pytest.mark.parametrize("command", COMMANDS, ids=["prior", "posterior", "layers"])
def test_it_trains_and_is_evaluated_drawn_and_packed(copy, command):
    flags = shlex.split(command)[3:]
    directory = f"run{COMMANDS.index(command)}"

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=copy, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    trained = python("experiments.run", *flags, *SMALL, f"--run_dir={directory}")
    assert "warning" not in trained.stderr
    summary = json.loads((copy / directory / "summary.json").read_text())
    assert summary["nll"] < -summary["elbo"] and summary["rate"] > 0
    estimated = "posterior=radial" in command or "second_look" in command
    assert ("estimated" in summary["posterior_means"]) == estimated
    python("experiments.evaluate", directory, "--nll_samples=5", "--images=50")
    python("experiments.pack", directory)
    python("experiments.plot", f"{directory}.safetensors", "--figures=samples")


CHECK = """
import jax, jax.numpy as jnp, numpy as np
from scipy.stats import norm
from vae_jax import models, objectives, evaluation
from vae_jax.types import unconditional

key = jax.random.key(0)
x = jax.random.bernoulli(key, 0.4, (3, 4, 4, 1)).astype(jnp.float32)
c = jnp.zeros(0)

def built(**settings):
    from vae_jax import settings as s
    vae = models.build(s.make(models.ModelConfig, settings), (4, 4, 1))
    return vae, vae.init(key)

# the prior is the mixture of its encoded images, whatever the condition
vae, params = built(prior="encoded_images", encoded_images=3, latent_dim=2, widths="8")
z = jnp.array([0.3, -0.2])
q = jax.vmap(lambda u: vae.posterior(params, u, c))(params["prior"]["images"])
exact = jax.nn.logsumexp(jax.vmap(lambda q: q.log_prob(z))(q)) - jnp.log(3)
np.testing.assert_allclose(vae.prior(params, c).log_prob(z), exact, rtol=1e-5)

# a flow's density is that of the change of variables; without steps it is the diagonal's
vae, params = built(posterior="radial", radial_steps=3, latent_dim=2, widths="8")
flow = vae.posterior(params, x[0], c)
push = lambda e: flow.bijector.forward_and_log_det(e)[0]
start = flow.base.sample(key)
_, log_det = jnp.linalg.slogdet(jax.jacfwd(push)(start))
z, log_q = flow.sample_and_log_prob(key)
np.testing.assert_allclose(log_q, flow.base.log_prob(start) - log_det, rtol=1e-4, atol=1e-4)
plain, same = built(posterior="radial", radial_steps=0, latent_dim=2, widths="8")
other, _ = built(latent_dim=2, widths="8")
a, b = (v.draw(same, key, x[0], c) for v in (plain, other))
np.testing.assert_array_equal(a.z, b.z)
np.testing.assert_array_equal(a.log_likelihood, b.log_likelihood)

# the two steps' draw is the composition of the three distributions
vae, params = built(model="second_look", first_latents=3, second_latents=2)
draw = vae.draw(params, key, x[0], c)
q, p = vae.posterior(params, x[0], c), vae.prior(params, c)
z, log_q = q.sample_and_log_prob(key)
for one, two in zip(z, draw.z): np.testing.assert_array_equal(one, two)
np.testing.assert_allclose(draw.log_posterior, log_q, rtol=1e-5)
np.testing.assert_allclose(draw.log_prior, p.log_prob(z), rtol=1e-5)
log_x = vae.likelihood(params, z, c).log_prob(x[0])
np.testing.assert_allclose(draw.log_likelihood, log_x, rtol=1e-5)
draws = jax.vmap(lambda k: vae.draw(params, k, x[0], c))(jax.random.split(key, 20000))
gap = np.asarray(draws.rate - draws.sampled_rate)
assert abs(gap.mean()) < 5 * gap.std() / 20000**0.5

# the objective's gradient on its own parameter is the broken constraint
from vae_jax import settings as s
config = s.make(objectives.ObjectiveConfig, {"objective": "wanted_rate", "wanted_rate": 2.0})
vae, _ = built(latent_dim=2, widths="8")
objective = objectives.build(config, vae, (4, 4, 1), 3)
params = objectives.init_params(vae, objective, key)
weights = objectives.KLWeights()
loss = lambda p: objective(vae, p, key, unconditional(x), weights)
slope, metrics = jax.grad(loss, has_aux=True)(params)
np.testing.assert_allclose(slope["objective"]["log_beta"], -(metrics["rate"] - 2.0), rtol=1e-5)

# samples of the likelihood have its mean, and its density sums to one
vae, params = built(likelihood="poisson", counts=4, latent_dim=2, widths="8")
p = vae.likelihood(params, jnp.zeros(2), c)
drawn = jax.vmap(p.sample)(jax.random.split(key, 4000))
assert abs(drawn.mean(0) - p.mean).max() < 0.05
one = p.__class__(p.log_rate[0, 0], p.counts)
total = sum(jnp.exp(one.log_prob(jnp.array([k / 4]))) for k in range(40))
np.testing.assert_allclose(total, 1, rtol=1e-5)
print("right")
"""


def test_what_they_compute_is_right(copy):
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=copy, capture_output=True, text=True)
    assert done.stdout.endswith("right\n"), done.stderr[-3000:]
