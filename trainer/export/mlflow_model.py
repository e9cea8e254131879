"""A model directory as a pyfunc model of MLflow: written to a directory, put into the registry.

    save(Path("exports/demo/model"), Path("served"))
    register(Path("served"), store.uri, NAME, run_id, tags)

What serves it is trainer/export/served_model.py, which travels with it. Neither step loads torch.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import logging
import shutil
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from conf.errors import WorkError
from conf.files import file_sha256, link

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "fun-asr-nano-8k-telephone"
"""Registered unless another name is asked for: the experiment's."""
ALIAS = "champion"
CODE = Path(__file__).with_name("served_model.py")
REQUIREMENTS = (
    *("mlflow", "funasr", "torch", "torchaudio", "transformers", "tiktoken"),
    *("soundfile", "numpy", "pandas"),
)
"""What served_model.py and FunASR's Fun-ASR-Nano import; their own requirements come with them."""
_FILES = "files.sha256"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, now its champion.

    Attributes:
        created: False where a version of these very files was there.
        former: The version that was champion before, if another one was.
    """

    name: str
    version: str
    created: bool
    former: str | None

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` and `mlflow.pyfunc.load_model` take."""
        return f"models:/{self.name}@{ALIAS}"

    def __str__(self) -> str:
        new = "" if self.created else ", as before"
        former = f", instead of version {self.former}" if self.former else ""
        return f"{self.uri} is version {self.version}{new}{former}"


def save(model: Path, directory: Path) -> None:
    """Write a model directory as an MLflow model, complete in itself.

    Args:
        model: A packaged model directory; its files are linked, not copied.
        directory: To be made, on the same file system.

    Raises:
        WorkError: MLflow could not write it.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "audio", required=False),
                ColSpec(Array(DataType.double), "samples", required=False),
                ColSpec(DataType.long, "sample_rate_hz", required=False),
            ]
        ),
        outputs=Schema([ColSpec(DataType.string)]),
    )
    with _plainly("could not write the served model"), _quiet():
        mlflow.pyfunc.save_model(
            directory,
            python_model=str(CODE),
            signature=signature,
            input_example={"audio": example()},
            pip_requirements=[f"{name}=={_version(name)}" for name in REQUIREMENTS],
        )
        # MLflow would copy the weights twice, by way of the temporary directory, and note the paths
        # of this machine.
        inside = Path("artifacts", "model")
        shutil.copytree(
            *(model, directory / inside),
            copy_function=lambda source, goal: link(Path(source), Path(goal)),
        )
        written = Model.load(directory)
        python = written.flavors["python_function"]
        python["model_code_path"] = CODE.name
        python["artifacts"] = {"model": {"path": inside.as_posix(), "uri": inside.as_posix()}}
        written.save(directory / "MLmodel")


def example() -> str:
    """A recording as a request carries it: a tenth of a second of nobody's voice, in base64."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"".join((n % 40 * 50).to_bytes(2, "little") for n in range(800)))
    return base64.b64encode(content.getvalue()).decode()


def register(
    directory: Path, tracking_uri: str, name: str, run_id: str, tags: Mapping[str, str]
) -> Registered:
    """Make a saved model a version of a registered one, and that version its champion.

    A version of the same files is taken again instead of another copy of its weights. What fails
    on the way is undone.

    Args:
        directory: What `save` wrote.
        tracking_uri: The MLflow store; its registry is used unless MLFLOW_REGISTRY_URI names one.
        name: Of the registered model; made if there is none.
        run_id: The run that trained it.
        tags: Of the version.

    Raises:
        WorkError: The registry is not there, or its disk is full.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _plainly(f"MLflow registry {tracking_uri}"), _quiet():
        client = MlflowClient(tracking_uri=tracking_uri)
        tags = {**tags, _FILES: _digest(directory)}
        with contextlib.ExitStack() as undo:
            try:
                client.get_registered_model(name)
            except MlflowException:
                client.create_registered_model(name)
                undo.callback(client.delete_registered_model, name)
            aliases = client.get_registered_model(name).aliases
            former = str(aliases[ALIAS]) if ALIAS in aliases else None
            version = _same(client, name, tags[_FILES])
            created = version is None
            if version is None:
                version = _create(client, undo, directory, name, run_id, tags)
            client.set_registered_model_alias(name, ALIAS, version)
            undo.pop_all()
    return Registered(name, version, created, None if former == version else former)


def _create(
    client: MlflowClient,
    undo: contextlib.ExitStack,
    directory: Path,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
) -> str:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(
        experiment_id, name="model", source_run_id=run_id, tags=dict(tags), model_type="asr"
    )
    undo.callback(_remove, client, logged.model_id, logged.artifact_location)
    written = Model.load(directory)
    written.model_id, written.run_id = logged.model_id, run_id
    written.save(directory / "MLmodel")
    client.log_model_artifacts(logged.model_id, str(directory))
    client.finalize_logged_model(logged.model_id, "READY")
    version = client.create_model_version(
        name,
        source=logged.artifact_location,
        run_id=run_id,
        tags=dict(tags),
        model_id=logged.model_id,
    )
    undo.callback(client.delete_model_version, name, version.version)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(version.version)


def _same(client: MlflowClient, name: str, digest: str) -> str | None:
    """The newest version of the same files whose copy is still there."""
    from mlflow.artifacts import list_artifacts

    found = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.tags.get(_FILES) == digest and version.status == "READY"
    ]
    for version in sorted(found, key=lambda version: -int(version.version)):
        location = client.get_model_version_download_uri(name, version.version)
        if any(
            file.path.endswith("MLmodel")
            for file in list_artifacts(artifact_uri=location, tracking_uri=client.tracking_uri)
        ):
            return str(version.version)
    return None


def _remove(client: MlflowClient, model_id: str, location: str) -> None:
    client.delete_logged_model(model_id)
    place = urlparse(location)
    if place.scheme in ("", "file"):  # MLflow only marks it as deleted
        files = Path(unquote(place.path))
        shutil.rmtree(files, ignore_errors=True)
        with contextlib.suppress(OSError):
            files.parent.rmdir()


def _digest(directory: Path) -> str:
    """Of all files but MLmodel, which holds the time."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        relative = path.relative_to(directory)
        if relative.name == "MLmodel" or "__pycache__" in relative.parts:
            continue
        digest.update(f"{relative.as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    # Without a local part such as +cpu, which only one package index knows.
    return importlib.metadata.version(package).partition("+")[0]


@contextlib.contextmanager
def _plainly(what: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        lines = (getattr(error, "strerror", None) or str(error)).splitlines()
        raise WorkError(f"{what}: {lines[0] if lines else type(error).__name__}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells its steps and recommends type hints whatever filters say; errors are raised."""
    logger: Any = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
