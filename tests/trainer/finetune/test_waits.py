"""How often an update asks the device for something, and so waits for it: at most once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from conf.load import STAGES, Config, load_config, stage_config_path
from tests.benchmarks.operations import MOST, of_update
from trainer.data.batch import collate, make_example
from trainer.data.loader import Loader
from trainer.data.manifest import read_data_list
from trainer.finetune.loop import Listeners, LoopConf, Trainer
from trainer.model import stages
from trainer.model.build import build
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer, build_scheduler


class Asked(TorchFunctionMode):
    """Notes what is called that a GPU would have to answer."""

    ANSWERED = frozenset({"item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__"})

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if (name := getattr(func, "__name__", "")) in self.ANSWERED:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


class Found(TorchDispatchMode):
    """Notes what is dispatched whose shape depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("nonzero", "masked_select", "_local_scalar_dense", "equal", "unique2"):
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.quick
@pytest.mark.parametrize("stage", STAGES)
def test_an_update_of_the_released_size_asks_for_no_value(stage: str) -> None:
    """The meta device, which has none, would refuse; and not too much is dispatched."""
    config = load_config(stage_config_path(stage), find_model=False)
    assert of_update(config) <= MOST.get(stage, MOST["8k"])


@pytest.mark.quick
@pytest.mark.parametrize(("max_skipped_steps", "times"), [(0, 0), (3, 1)])
@pytest.mark.parametrize("stage", STAGES)
def test_an_update_with_its_optimizer_asks_at_most_once(
    tiny_config: Callable[..., Config], stage: str, max_skipped_steps: int, times: int
) -> None:
    """Whether it has to be left out, where that may be; losses are read at the next log line."""
    config = tiny_config(
        stage,
        train_conf__accum_grad=2,
        train_conf__log_interval=1000,
        finetune_conf__max_skipped_steps=max_skipped_steps,
    )
    nano = build(config)
    stages.apply(nano.model, config)
    stages.set_training_mode(nano.model)
    objective, optimizer = Objective(nano.model, config), build_optimizer(nano.model, config)
    utterances = read_data_list(config["train_data_set_list"])[:6]
    examples = [make_example(u, nano.extractor, nano.codec) for u in utterances]
    sampler: Any = None
    trainer = Trainer(
        *(nano, objective, optimizer, build_scheduler(optimizer, config)),
        *(Loader(utterances, lambda _: examples[0], 0), sampler, LoopConf.of(config)),
        Listeners(on_log=lambda *_: None),
    )
    batches = [objective.prepared(collate(part)) for part in (examples[:4], examples[4:])]
    trainer._update(batches)
    with Asked() as asked, Found() as found:
        trainer._update(batches)
    assert asked.calls == ["tolist"] * times
    assert found.calls == []
