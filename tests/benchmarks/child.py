"""One measurement in a process of its own, so that no other one has warmed anything up for it.

python -m tests.benchmarks.child NAME OUTPUT.json '{"stage": "8k", ...}'
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from tests.stocks_way import STOCKS_WAY, PlannedBatches, train_as_planned

if TYPE_CHECKING:
    from trainer.data.manifest import Utterance
    from trainer.model.build import Nano

SCENE: Mapping[str, Any] = {
    "dataset_conf.data_split_num": 1,
    "dataset_conf.batch_type": "example",
    "dataset_conf.batch_size": 8,
    "dataset_conf.prompt_classes": None,
    "train_conf.accum_grad": 1,
    "train_conf.log_interval": 10,
    "optim_conf.lr": 1e-4,
    "frontend_conf.dither": 0.0,
    "llm_conf.llm_dtype": "fp32",
    "train_conf.use_bf16": False,
}
"""The same work on both sides: batches, prompt and precision."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "off": {**STOCKS_WAY, "finetune_conf.fused": True},
    "ce": {"ctc_weight": 0.0, "specaug": None},
    "default": {},
}
"""What of ours is on: nothing that changes more than rounding; our defaults but for CTC and
SpecAug, so that the loss is stock's; our defaults."""


@dataclass
class Clock:
    """CPU and wall time of spans."""

    spans: list[dict[str, float]] = field(default_factory=list)

    def start(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def lap(self) -> None:
        """Ends a span where the next one begins."""
        cpu_s, wall_s = self._cpu_s, self._wall_s
        self.start()
        self.spans.append({"cpu_s": self._cpu_s - cpu_s, "wall_s": self._wall_s - wall_s})

    @contextlib.contextmanager
    def span(self) -> Iterator[None]:
        self.start()
        yield
        self.lap()

    def per_utterance_ms(self, count: int) -> list[dict[str, float]]:
        return [
            {
                "cpu_ms": 1000 * span["cpu_s"] / count,
                "wall_ms": 1000 * span["wall_s"] / count,
            }
            for span in self.spans
        ]


# Training


def train_stock(request: Mapping[str, Any]) -> dict[str, Any]:
    """Epochs of stock's trainer; its validation and checkpoints are not measured."""
    from trainer.finetune import stock_engine as stock

    config = _config(request, STOCKS_WAY)
    clock, seen = Clock(), [0]
    command = stock.training_module()

    class Timed(command.Trainer):  # type: ignore[name-defined,misc]
        def train_epoch(self, *args: Any, **kwargs: Any) -> None:
            with clock.span():
                super().train_epoch(*args, **kwargs)

        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            """Disk is not what is compared."""

    def count(batch: Mapping[str, Any]) -> None:
        seen[0] += len(batch["item"])

    with (
        stock.replaced(command, "Trainer", Timed),
        stock.replaced(command, "average_checkpoints", lambda *_, **__: None),
    ):
        stock.train(stock.arguments(config), hooks=stock.Hooks(batch=count))
    return {"epochs": clock.per_utterance_ms(seen[0] // len(clock.spans)), "utterances": seen[0]}


def train_ours(request: Mapping[str, Any]) -> dict[str, Any]:
    """Epochs of our loop on the batches that stock's sampler makes."""
    from trainer.data.manifest import read_data_list

    config = _config(request, VARIANTS[request["variant"]])
    utterances = read_data_list(config["train_data_set_list"])
    plan = PlannedBatches(
        [_stocks_batches(config, utterances, epoch) for epoch in range(request["epochs"])]
    )
    clock = _train_epochs(config, utterances, plan)
    return {
        "epochs": clock.per_utterance_ms(len(plan)),
        "utterances": len(plan) * len(clock.spans),
    }


def _train_epochs(config: Config, utterances: Sequence[Utterance], plan: PlannedBatches) -> Clock:
    from trainer.model import stages
    from trainer.model.losses import Objective
    from trainer.model.optim import build_optimizer

    nano = _nano(config)
    stages.apply(nano.model, config)
    objective, optimizer = Objective(nano.model, config), build_optimizer(nano.model, config)
    clock = Clock()
    clock.start()  # outputs of frozen parts are computed before the first epoch: it pays for them
    train_as_planned(config, nano, objective, optimizer, utterances, plan, lambda *_: clock.lap())
    return clock


def _stocks_batches(config: Config, utterances: Sequence[Utterance], epoch: int) -> list[list[int]]:
    """Batches of stock's own sampler, without its dataset."""
    from trainer.funasr_parts import load, registered

    load("funasr.datasets.audio_datasets.samplers")

    class Lengths:
        def __len__(self) -> int:
            return len(utterances)

        def get_source_len(self, index: int) -> int:
            return 1

    arguments = registered("batch_sampler_classes", "BatchSampler")(
        Lengths(), **config["dataset_conf"]
    )
    sampler = arguments["batch_sampler"]
    sampler.set_epoch(epoch)
    batches: list[list[int]] = list(sampler)
    return batches


# Evaluation


def evaluate_stock(request: Mapping[str, Any]) -> dict[str, Any]:
    """``AutoModel.generate``, one recording after the other, as FunASR's users call it."""
    from trainer.data.manifest import read_data_list
    from trainer.finetune import stock_engine as stock

    stock.training_module()
    from funasr import AutoModel

    utterances = read_data_list(request["data"])
    model = AutoModel(model=str(BASE), device="cpu", ncpu=1, disable_update=True)

    def text(utterance: Utterance) -> str:
        result = model.generate(
            input=str(utterance.source), disable_pbar=True, max_length=request["max_new_tokens"]
        )
        return str(result[0]["text"])

    text(utterances[0])
    clock = Clock()
    with clock.span():
        texts = {utterance.key: text(utterance) for utterance in utterances}
    return {"passes": clock.per_utterance_ms(len(utterances)), "texts": texts}


def evaluate_ours(request: Mapping[str, Any]) -> dict[str, Any]:
    """CER of the set, in batches: with no features cached, then with all of them."""
    from trainer.data.manifest import read_data_list
    from trainer.evaluation.evaluate import evaluate

    config = _config(request, {})
    nano = _nano(config)
    utterances = read_data_list(request["data"])
    clock = Clock()
    for _ in ("cold", "cached"):
        with clock.span():
            scores = evaluate(
                nano,
                utterances,
                max_new_tokens=request["max_new_tokens"],
                batch_size=config["finetune_conf.eval_batch_size"],
            )
    return {
        "passes": clock.per_utterance_ms(len(utterances)),
        "texts": {scored.key: scored.text for scored in scores.utterances},
        "cer": scores.cer.rate,
    }


# What they have in common


def _config(request: Mapping[str, Any], variant: Mapping[str, Any]) -> Config:
    directory = Path(request["directory"])
    settings = {
        **SCENE,
        **variant,
        "dataset_conf.num_workers": request.get("num_workers", 0),
        "train_conf.max_epoch": request.get("epochs", 1),
        "train_data_set_list": request["data"],
        "valid_data_set_list": request["valid"],
        "output_dir": str(directory / "output"),
        "finetune_conf.feature_cache_dir": str(directory / "features"),
    }
    return load_config(
        stage_config_path(request.get("stage", "8k")),
        init_param=BASE / "model.pt",
        layers=[("benchmark", settings)],
    )


def _nano(config: Config) -> Nano:
    from trainer.model.build import build

    return build(config)


MEASUREMENTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "train_stock": train_stock,
    "train_ours": train_ours,
    "evaluate_stock": evaluate_stock,
    "evaluate_ours": evaluate_ours,
}


def main(name: str, output: str, request: str) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # FunASR prints
        found = MEASUREMENTS[name](json.loads(request))
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(output).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
