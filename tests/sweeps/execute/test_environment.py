"""Workers get no credentials: by the names of variables, and by the URIs in them."""

from __future__ import annotations

import pytest

from sweeps.execute.environment import for_workers
from sweeps.execute.tuner import keep_credentials

pytestmark = [pytest.mark.quick, pytest.mark.attack]

SECRET = {
    "AWS_SECRET_ACCESS_KEY": "PLANTKEY",
    "AWS_PROFILE": "work",
    "MLFLOW_TRACKING_PASSWORD": "PLANTPW",
    "HF_TOKEN": "hf_x",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "WANDB_API_KEY": "x",
    "MLFLOW_TRACKING_URI": "http://plantuser:PLANTPW1@host:5000",
    "HTTPS_PROXY": "http://me:pw@proxy:3128",
}
NEEDED = {
    "PATH": "/usr/bin",
    "CUDA_VISIBLE_DEVICES": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_AUTH_TOKEN": "of Ray's own processes",
    "RAY_AUTH_MODE": "token",
    "HTTP_PROXY": "http://proxy:3128",
    "KEYBOARD": "de",
}


def test_credentials_stay_with_the_driver() -> None:
    assert for_workers({**SECRET, **NEEDED, "MLFLOW_RUN_ID": "of the driver"}) == NEEDED


def test_tune_copies_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution import class_cache

    copied = set(class_cache.ENV_VARS_TO_PROPAGATE)
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", copied)
    for name in copied:
        monkeypatch.setenv(name, f"PLANT {name}")
    keep_credentials()

    class Trainable:
        pass

    remote = class_cache._ActorClassCache().get(Trainable)
    given = remote._default_options["runtime_env"]["env_vars"]
    assert "PLANT RAY_CHDIR_TO_TRIAL_DIR" in given.values()  # so this is what workers get
    assert not [name for name in given if name.startswith("AWS_")]
