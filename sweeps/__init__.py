"""Sweeps: many fine-tunes, chosen by Optuna, run by Ray Tune and recorded in MLflow.

Here is what one sweep is made of, and pipelines of several sweeps; one fine-tune is in `trainer`.
Begin with `run.py`.
"""

import os

# Ray reads this when it is imported. Left on, a driver under `uv run` starts every worker by that
# same command again: slower, and not at all where the command's relative paths lead nowhere.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
