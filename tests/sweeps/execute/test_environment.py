"""Workers get no credentials: by the names of variables, and by the URIs in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sweeps.execute.environment import for_workers
from sweeps.execute.orphans import SESSION
from sweeps.execute.tuner import keep_credentials
from tests.sweeps.driving import drive

pytestmark = pytest.mark.attack

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


@pytest.mark.quick
def test_credentials_stay_with_the_driver() -> None:
    assert for_workers({**SECRET, **NEEDED, "MLFLOW_RUN_ID": "of the driver"}) == NEEDED


@pytest.mark.quick
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


PLANTED = """
import os
os.environ |= {"AWS_SECRET_ACCESS_KEY": "PLANTED-1", "HF_TOKEN": "PLANTED-2"}
os.environ["SOME_URI"] = "postgresql://user:PLANTED-3@host/db"
os.umask(0o022)
from tests import fakes

def told(config, tracker, on_eval):
    import os
    with open(os.path.join(config["output_dir"], "environ"), "w") as file:
        file.write(repr(dict(os.environ)))
    with open(os.path.join(config["output_dir"], "niceness"), "w") as file:
        file.write(str(os.nice(0)))
    return fakes.finetune(config, tracker, on_eval)

fakes.told = told
"""


@pytest.mark.slow
def test_workers_are_as_nice_as_the_driver_and_get_none_of_its_credentials(place: Path) -> None:
    there = set(place.rglob("*"))
    swept = drive("sweep.yaml", "told", "trials=4", before=PLANTED)
    assert swept.returncode == 0, swept.stderr
    sweep = place / "outputs/sweeps/tiny"
    told = list(sweep.rglob("environ"))
    assert len(told) == 4
    assert {path.read_text() for path in sweep.rglob("niceness")} == {str(os.nice(0))}
    written = [path for path in place.rglob("*") if path not in there]
    session = Path((sweep / SESSION).read_text().strip())
    for path in [*written, *session.rglob("*")]:
        if path.is_file():
            assert b"PLANTED" not in path.read_bytes(), path
    shared = [path for path in written if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert shared == []
    token = Path("~/.ray/auth_token").expanduser()
    assert not stat.S_IMODE(token.stat().st_mode) & 0o077
