"""What the processes that train may know of the driver's environment: nothing secret.

They read and write files alone; MLflow's and the artifact store's credentials are the driver's. Ray
also writes a part of what a worker gets into logs, in clear.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from conf.errors import mask

_ROOT = Path(__file__).parents[2]
NOT_FOR_WORKERS = frozenset({"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"})
_SECRET = re.compile(
    r"AWS_.*|(?!RAY_)(.*_)?(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|KEY)(_.*)?", re.IGNORECASE
)
"""Ray's own token is for its processes."""


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable holds credentials, by its name or by the URI in it."""
    return _SECRET.fullmatch(name) is not None or mask(value) != value


def for_commands(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for a command of ours, which finds our packages wherever it is started."""
    variables = for_workers(environment)
    paths = [str(_ROOT), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    variables.setdefault("OMP_NUM_THREADS", "1")
    return variables


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without secrets, and without MLflow's run, which is the driver's."""
    return {
        name: value
        for name, value in environment.items()
        if name not in NOT_FOR_WORKERS and not is_secret(name, value)
    }
