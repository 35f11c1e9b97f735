#!/usr/bin/env bash
# Many runs from one command: every combination of the values that the commas separate.
#
#   ./launch.sh -- --latent_dim=2,5,10 --beta=1,4 --seed=0,1,2        # 18 runs, on this machine
#   ./launch.sh --slurm --sbatch='--time=4:00:00 --gres=gpu:1' -- …   # the same as one job array
#   ./launch.sh --dry_run -- …                                        # what would be done
#   ./launch.sh --help                                                # every option
#
# Called again, it runs only what is not finished, and resumes what was cut. PYTHON=… names the
# interpreter; by default it is the one of .venv beside this file, or python3.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

if [[ -z ${PYTHON:-} ]]; then
  PYTHON=$root/.venv/bin/python
  [[ -x $PYTHON ]] || PYTHON=python3
fi
if ! command -v -- "$PYTHON" >/dev/null; then
  echo "error: no Python at $PYTHON: install as the README says, or name one with PYTHON=…" >&2
  exit 2
fi

# From any folder: paths among the flags are relative to where the command is given.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m experiments.launch "$@"
