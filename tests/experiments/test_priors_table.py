"""The table of posteriors and priors."""

import json

import pytest

from experiments import priors as experiment
from experiments.cli.config import parse
from vae_jax import evaluation
from vae_jax.settings import UserError

TINY = ["--dataset=digits", "--widths=8", "--steps=2", "--nll_samples=2", "--batch_size=64"]


def test_every_pair_has_its_row_and_its_settings(tmp_path, capsys):
    flags = [*TINY, "--latent_dim=3", f"--run_dir={tmp_path}", "--posteriors=diagonal,mixture",
             "--priors=vamp", "--pseudo_inputs=5", "--posterior_components=2"]  # fmt: skip
    table = parse(flags, experiment.Config)
    assert experiment.main(table) == 0
    rows = json.loads((tmp_path / "priors.json").read_text())["rows"]
    assert list(rows) == ["diagonal-vamp", "mixture-vamp"]
    model = json.loads((tmp_path / "mixture-vamp" / "config.json").read_text())["settings"]["model"]
    assert (model["posterior"], model["prior"]) == ("mixture", "vamp")
    assert (model["pseudo_inputs"], model["posterior_components"]) == (5, 2)
    summary = json.loads((tmp_path / "diagonal-vamp" / "summary.json").read_text())
    assert rows["diagonal-vamp"]["elbo"] == summary["elbo"]
    assert rows["diagonal-vamp"]["ms_per_step"] == 1000 * summary["train_seconds"] / 2
    run = experiment.runs.load(tmp_path / "diagonal-vamp")
    job = experiment.assemble(table.members["diagonal-vamp"])
    key = experiment.jax.random.key(0)
    exact = evaluation.aggregate(run.vae, run.params, job.held_out(job.dataset.test), key)[0]
    assert rows["diagonal-vamp"]["marginal_kl"] == exact["marginal_kl"]
    first = capsys.readouterr().out
    assert experiment.main(table) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prior=vamp"], "give --posteriors and --priors"),
        (["--priors=vmp"], "some of standard, conditional"),
        (["--priors=vamp,vamp"], "some of standard"),
        (["--priors=standard", "--pseudo_inputs=3"], "pseudo_inputs does nothing"),
        (["--priors=conditional"], "needs a condition"),
    ],
)
def test_what_makes_no_table_is_one_line(tmp_path, flags, said):
    with pytest.raises(UserError, match=said) as error:
        experiment.main(parse([*TINY, f"--run_dir={tmp_path}", *flags], experiment.Config))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
