"""What an untouched model says of a set, decoded by one process and read by all the others.

Before its first update every trial of a sweep is the same model and is scored on the same sets.
Whichever process comes to a set first decodes it, the others wait and read:

    shared = SharedOutputs(directory, config)
    scores = evaluate(nano, utterances, ..., shared=shared)

    directory/KEY.json     texts of a set, and its losses by what they are weighed with
    directory/KEY.lock     held by the process that decodes

KEY is a hash of all that decides the texts: weights, architecture, frontend, tokenizers,
recordings, decoding, device and versions. Only keys that are known to change nothing before
training are left out of it, so a new key of the schema counts until it is named here. References,
keywords and normalisations are not part of it: errors are counted from the texts each time. A file
is whole or not there, and a lock ends with its process, so after any kill the next one decodes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from conf import keys
from conf.files import holder_of, locked, write_json
from conf.load import Config
from trainer.data.features import unreadable
from trainer.data.manifest import Utterance
from trainer.evaluation.decode import Hypothesis
from trainer.model.build import Nano

_LOG = logging.getLogger(__name__)
_VERSION = 1
"""Raised with every change of the decoding that may change a text."""

TRAINING_ROLES = frozenset({"optimization", "augmentation", "checkpointing", "data"})
"""Roles whose keys change nothing before the first update; `_ADAPTERS` may."""
TRAINING_KEYS = frozenset(
    {
        *("hub", "debug", "device", "max_length", "llm_kwargs"),
        *("train_conf.log_interval", "train_conf.reset_gpu_cache", "dataset_conf.num_workers"),
        "tokenizer_conf.unk_symbol",  # FunASR's tokenizer does nothing with it
        *(
            f"finetune_conf.{name}"
            for name in (
                *("stage", "seed", "num_threads", "engine", "decay_norm_and_bias"),
                *("frozen_dropout", "max_skipped_steps", "valid_subset", "eval_max_s"),
                *("feature_cache_mb", "feature_cache_dir", "cache_frozen_outputs"),
                *("channel", "channel_share", "keywords", "allow_unknown"),
                *("wideband_data_set_list", "silence_data_set_list", "test_data_set_list"),
            )
        ),
    }
)
"""Keys of the other roles that change nothing before the first update, or count in another way:
device and threads as they are, the sets by their recordings."""
_ADAPTERS = "llm_conf.lora_conf."
"""New adapters add exactly zero; trained ones count."""
_LOSS = ("ctc_weight",)


@dataclass(frozen=True)
class Outputs:
    """What a model says of a set.

    Attributes:
        hypotheses: By utterance key.
        loss: None where it was not asked for.
    """

    hypotheses: Mapping[str, Hypothesis]
    loss: float | None


Run = Callable[[bool, bool], Outputs]
"""Runs the model for texts, for the loss, or for both."""


class SharedOutputs:
    """The outputs of a model before training, in a directory that processes have in common.

    Args:
        directory: Made when it is needed.
        config: What the model was built from.
    """

    def __init__(self, directory: Path, config: Config) -> None:
        self._directory = directory
        self._config = config

    def get(self, nano: Nano, utterances: Sequence[Utterance], *, loss: bool, run: Run) -> Outputs:
        """Read what is there and let the model make, once for all processes, what is not.

        Args:
            nano: The model, untouched.
            utterances: The set.
            loss: Whether its loss is asked for.
            run: Makes what is lacking.
        """
        key = output_key(self._config, nano, utterances)
        weighed = _digest(
            [[self._config[name] for name in _LOSS], [item.target for item in utterances]]
        )
        path = self._directory / f"{key}.json"
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._held(self._directory / f"{key}.lock"):
            texts, losses = _read(path, utterances)
            lacks_loss = loss and weighed not in losses
            if texts is None or lacks_loss:
                made = run(texts is None, lacks_loss)
                texts = made.hypotheses if texts is None else texts
                losses |= {weighed: made.loss} if lacks_loss else {}
                said = [astuple(texts[item.key]) for item in utterances]
                write_json(path, {"texts": said, "losses": losses}, indent=None)
            else:
                _LOG.info("%d texts of the untouched model: read from %s", len(utterances), path)
        return Outputs(texts, losses[weighed] if loss else None)

    @contextmanager
    def _held(self, lock: Path) -> Iterator[None]:
        if (holder := holder_of(lock)) is not None:
            _LOG.info("waiting for %s, which decodes with the same model", holder)
        with locked(lock):
            yield


def output_key(config: Config, nano: Nano, utterances: Sequence[Utterance]) -> str:
    """Give the hash of all that decides a model's texts of a set.

    Args:
        config: What the model was built from.
        nano: The model, its weights loaded and not yet trained.
        utterances: The set; recordings count by path, size and time of change.

    Raises:
        DataError: A recording is gone; names manifest and line.
    """
    coverage = nano.coverage
    assert coverage is not None, "without weights from a file there is nothing to share"
    trained_adapters = coverage.num_lora or config.get(f"{_ADAPTERS}init_param_path")
    device = nano.device.type
    return _digest(
        {
            "version": [
                _VERSION,
                torch.__version__,
                importlib.metadata.version("transformers"),
            ],
            "device": torch.cuda.get_device_name(nano.device) if device == "cuda" else device,
            "threads": torch.get_num_threads(),
            "weights": [coverage.sha256, coverage.base_sha256, coverage.num_lora],
            "files": _states(config.model_dir),
            "frontend": nano.extractor.identity,
            "config": {
                name: value
                for name, value in config.flat().items()
                if _counts(name) or (trained_adapters and name.startswith(_ADAPTERS))
            },
            "set": [[item.key, *_recording(item)] for item in utterances],
        }
    )


def _counts(name: str) -> bool:
    """Whether a key may decide a text before training."""
    key = keys.find_key(name)
    if key is None:  # the weights' own config.yaml has it, so the model may read it
        return True
    return key.role not in TRAINING_ROLES and name not in TRAINING_KEYS


def _states(directory: Path | None) -> list[list[Any]]:
    """The model directory's files but for weights, whose content counts: tokenizers and so on."""
    if directory is None:
        return []
    files = (path for path in sorted(directory.resolve().rglob("*")) if path.is_file())
    return [_state(path) for path in files if path.suffix not in (".pt", ".safetensors")]


def _recording(utterance: Utterance) -> list[Any]:
    try:
        return _state(utterance.source)
    except OSError as error:
        raise unreadable(utterance, error) from error


def _state(path: Path) -> list[Any]:
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def _read(
    path: Path, utterances: Sequence[Utterance]
) -> tuple[Mapping[str, Hypothesis] | None, dict[str, float | None]]:
    """The texts and losses that are there; a file that power loss has damaged counts as none."""
    try:
        found = json.loads(path.read_bytes())
        texts = [Hypothesis(*fields) for fields in found["texts"]]
        losses = dict(found["losses"])
    except FileNotFoundError:
        return None, {}
    except (ValueError, LookupError, TypeError):
        _LOG.warning("%s is damaged, so the untouched model decodes again", path)
        return None, {}
    if [said.key for said in texts] != [item.key for item in utterances]:
        return None, {}
    return {said.key: said for said in texts}, losses


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
