"""The search: sweep files, trials, Ray Tune as executor, an Optuna study as the record."""

import os

# Ray reads this when it is imported. Left on, a driver under `uv run` starts every worker by that
# same command again: slower, and not at all where the command's relative paths lead nowhere.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
