"""Models with random weights made on the device, and what they are trained and decoded on."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.checks.step_cost import QWEN3_06B, BatchShape, meta_model, num_features
from trainer.data.batch import Example
from trainer.data.loader import Loader
from trainer.demo.released_size import random_weights
from trainer.finetune.engine import EpochSummary
from trainer.finetune.loop import Listeners, LoopConf, Trainer
from trainer.model import stages
from trainer.model.build import Nano, apply_backends
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer, build_scheduler
from trainer.model.weights import _put

if importlib.util.find_spec("numba") is None:
    # With llvmlite it is larger than all that can be carried to a bare machine. FunASR's Whisper
    # compiles two functions with it, for timestamps of words, which nothing here asks for.
    numba = ModuleType("numba")
    numba.__spec__ = ModuleSpec("numba", None)
    numba.jit = lambda **_: lambda function: function
    sys.modules["numba"] = numba

LAST, ECHO = 3, 4
"""The prompt's last token, and the one that these models write after it, again and again: no two
ways of decoding differ in it."""
PROMPT = ([1] * 20, [2] * 9 + [LAST])
SETTINGS: Mapping[str, Any] = {
    "dataset_conf.num_workers": 0,
    "scheduler_conf.warmup_steps": 1,
    "train_conf.log_interval": 10**9,
    "train_conf.max_epoch": 1,
    "train_conf.save_checkpoint_interval": 10**9,
}
"""Updates and nothing between them."""


@dataclass(frozen=True)
class Size:
    """How large the model is, and how much is measured.

    Attributes:
        llm: The LLM's `config.json` or the directory it lies in.
        model: Directory with the rest of the architecture; None is the released one.
        shape: A batch.
        settings: Keys on top of a stage's.
        updates: In a row, after as many to warm up; their time is taken at once.
        repetitions: Of these.
        rows: That are decoded at once.
        new_tokens: Each of them gets, few and many: the difference is that of steps alone.
        adapters: Updates by which adapters are compared.
        elements: Sides of the square matrices of the ceilings.
    """

    llm: Mapping[str, Any] | Path = field(default_factory=lambda: QWEN3_06B)
    model: Path | None = None
    shape: BatchShape = BatchShape(utterances=15, num_frames=67, text_tokens=16)
    settings: Mapping[str, Any] = field(default_factory=dict)
    updates: int = 5
    repetitions: int = 5
    rows: tuple[int, ...] = (64, 256, 512)
    new_tokens: tuple[int, int] = (8, 40)
    adapters: int = 100
    elements: int = 8192


RELEASED = Size()
"""15 utterances of 4 s, as the predictions are for."""
TINY = Size(
    llm=BASE / "Qwen3-tiny",
    model=BASE,
    shape=BatchShape(utterances=3, num_frames=40, text_tokens=6),
    settings={"llm_conf.llm_dtype": "bf16"},
    updates=1,
    repetitions=2,
    rows=(2, 5),
    new_tokens=(2, 6),
    adapters=5,
    elements=64,
)
SIZES = {"released": RELEASED, "tiny": TINY}


class Ids:
    """A codec whose texts are the ids themselves: the released tokenizers are not at hand."""

    def llm_text(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    ctc_text = llm_text


def config_of(size: Size, stage: str, settings: Mapping[str, Any] | None = None) -> Config:
    """A stage's configuration as it is shipped, for updates alone."""
    return load_config(
        stage_config_path(stage),
        model=size.model,
        find_model=size.model is not None,
        layers=[("GPU tests", {**SETTINGS, **size.settings, **(settings or {})})],
    )


def random_nano(size: Size, config: Config, device: torch.device) -> Nano:
    """The model of a configuration, its weights the same ones each time on this kind of device."""
    apply_backends(config)
    model = meta_model(config, size.llm)
    shapes = model.state_dict()
    state = random_weights(shapes, (LAST, ECHO), lambda _: None, device)
    for name in state:
        if name.endswith("lora_B"):
            state[name].zero_()  # as adapters start
    _put(model, state)
    with device:  # its table is in no file
        model.llm.model.rotary_emb = type(model.llm.model.rotary_emb)(model.llm.config)
    model.to(device).eval()
    return Nano(model, None, Ids(), device, None)


def examples_of(size: Size, count: int) -> list[Example]:
    """Utterances of one length but for the first: batches have a little padding."""
    generator = torch.Generator().manual_seed(1)
    shape, width = size.shape, num_features(config_of(size, "8k"))
    target = [5 + n % 7 for n in range(shape.text_tokens)]
    features = torch.randn(count, shape.num_frames, width, generator=generator)
    whole = [Example(f"{n}", features[n], PROMPT, target, target) for n in range(count)]
    first = replace(whole[0], features_TF=features[0, :-2], target=target[1:])
    return [first, *whole[1:]]


class Training:
    """Updates of a stage by the trainer itself, on batches that are all alike.

    Args:
        size: Of the model and the batch.
        stage: Its short name.
        device: Where the model is made.
        settings: Keys on top of the size's.
    """

    def __init__(
        self,
        size: Size,
        stage: str,
        device: torch.device,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        gc.collect()  # what an earlier model held, on a GPU too
        torch.manual_seed(0)
        self.config = config_of(size, stage, settings)
        self.nano = random_nano(size, self.config, device)
        self.model = self.nano.model
        stages.apply(self.model, self.config)
        self.examples = examples_of(size, size.shape.utterances)
        self.optimizer = build_optimizer(self.model, self.config)
        self._scheduler = build_scheduler(self.optimizer, self.config)
        self._objective = Objective(self.model, self.config)

    def run(self, updates: int) -> EpochSummary:
        """Make so many updates; the device has finished when this returns."""
        batches = updates * self.config.get("train_conf.accum_grad", 1)
        plan = [list(range(len(self.examples)))] * batches
        found: list[EpochSummary] = []
        Trainer(
            self.nano,
            self._objective,
            self.optimizer,
            self._scheduler,
            Loader(self.examples, lambda example: example, 0),
            SimpleNamespace(epoch=lambda _: plan),
            LoopConf.of(self.config),
            Listeners(on_log=lambda step, metrics: None),
        ).train(lambda _, summary: found.append(summary))
        return found[0]
