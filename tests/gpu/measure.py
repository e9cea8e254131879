"""What is measured: functions of a device and a size, the same on a GPU and on the CPU.

On the CPU operations stand for kernels and what asks for a tensor's value for a wait, so that all
of it runs there; the figures mean something on a GPU alone.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import DeviceType, ProfilerActivity, profile

from conf.load import Config
from tests.conftest import ROOT
from tests.gpu.models import ECHO, SIZES, Size, Training, config_of, examples_of, random_nano
from trainer.checks.step_cost import StorageMeter, forecast
from trainer.data.batch import Example, collate
from trainer.evaluation.decode import decode
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.encoded import encode_examples
from trainer.model.losses import Objective

SAMPLE = 100_000
"""Entries of the gradient that are compared."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Time of some work, the device's included."""
    synchronize(device)
    started_s = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started_s


@dataclass(frozen=True)
class Ceilings:
    """What the device does at most.

    Attributes:
        copy_gb_s: Bytes read and written.
        tflops: 10^12 operations a second of a square matrix product, by number format.
        launch_us: That the host takes for a kernel of one element.
    """

    copy_gb_s: float
    tflops: Mapping[str, float]
    launch_us: float


def ceilings(device: torch.device, size: Size) -> Ceilings:
    """Copy, matrix product, and the start of a kernel."""
    elements = size.elements
    source = torch.zeros(elements * elements, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    copy_s = _least(device, lambda: target.copy_(source))
    tflops = {}
    allowed = torch.backends.cuda.matmul.allow_tf32
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        # Of zeros a GPU draws less power, and clocks higher.
        matrix = torch.randn(elements, elements, device=device).to(dtype)
        torch.mm(matrix, matrix)
        product_s = _least(device, lambda: torch.mm(matrix, matrix))  # noqa: B023 (called at once)
        tflops[name] = 2 * elements**3 / product_s / 1e12
    torch.backends.cuda.matmul.allow_tf32 = allowed
    one, launches = torch.zeros(1, device=device), 2000
    synchronize(device)
    started_s = time.perf_counter()
    for _ in range(launches):
        one.add_(1)
    launched_s = time.perf_counter() - started_s
    synchronize(device)
    return Ceilings(
        copy_gb_s=2 * source.nbytes / copy_s / 1e9,
        tflops=tflops,
        launch_us=1e6 * launched_s / launches,
    )


def _least(device: torch.device, work: Callable[[], object]) -> float:
    return min(seconds(device, work) for _ in range(5))


@dataclass(frozen=True)
class Step:
    """What has to be the same however it is computed: of one batch, with nothing drawn at random.

    Attributes:
        loss: Of the batch.
        gradient: Some entries of its gradient.
    """

    loss: float
    gradient: torch.Tensor


@dataclass(frozen=True)
class Update:
    """One update of a stage.

    Attributes:
        ms: Median.
        peak: Most bytes allocated.
        step: Of the first batch, before the first update.
    """

    ms: float
    peak: int
    step: Step


@dataclass(frozen=True)
class Counts:
    """What an update asks of the device.

    Attributes:
        kernels: That it starts.
        kernels_ms: That they run.
        waits: Times that the host waits for the device.
        places: Where, most often first.
        forecast: Bytes at the peak, as `trainer check` says.
    """

    kernels: float
    kernels_ms: float
    waits: float
    places: tuple[str, ...]
    forecast: int


def update(device: torch.device, size: Size, training: Training) -> Update:
    """Train on batches that are all alike, as the trainer does."""
    first = step(training)
    training.run(size.updates)
    with _peak(device, training) as peak:
        times_s = [
            seconds(device, lambda: training.run(size.updates)) / size.updates
            for _ in range(size.repetitions)
        ]
    return Update(1000 * statistics.median(times_s), peak[0], first)


def counts(device: torch.device, size: Size, training: Training) -> Counts:
    """Count in a few more updates, after `update`."""
    started, busy_s = kernels(device, lambda: training.run(2))
    few, many = (waits(device, lambda n=n: training.run(n)) for n in (2, 4))
    between = many - few  # an epoch's end waits, too
    expected = forecast(training.config, size.shape, llm=size.llm, count_flops=False)
    return Counts(
        kernels=started / 2,
        kernels_ms=1000 * busy_s / 2,
        waits=between.total() / 2,
        places=tuple(f"{count / 2:g} {place}" for place, count in between.most_common()),
        forecast=expected.peak,
    )


def step(training: Training) -> Step:
    """Loss and gradient of a batch, without SpecAug and dropout; nothing is updated."""
    model = training.model.eval()
    config = training.config.replace({"specaug": None}, "GPU tests")
    batch = collate(training.examples).to(training.nano.device)
    with torch.autocast(
        training.nano.device.type, torch.bfloat16, enabled=config["train_conf.use_bf16"]
    ):
        loss = Objective(model, config)(batch, training=True).total
    loss.backward()
    gradient = _sample(model)
    training.optimizer.zero_grad(set_to_none=True)
    return Step(loss.item(), gradient)


def _sample(model: torch.nn.Module) -> torch.Tensor:
    """Entries of the gradient, evenly from all parameters."""
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    stride = -(-sum(gradient.numel() for gradient in found) // SAMPLE)
    return torch.cat([gradient[::stride].float() for gradient in found]).cpu()


@contextmanager
def _peak(device: torch.device, training: Training) -> Iterator[list[int]]:
    """Most bytes that are allocated within; on the CPU by the storages that are made there."""
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device))
        return
    state = training.optimizer.state_dict()["state"].values()
    moments = [value for values in state for value in values.values() if torch.is_tensor(value)]
    known = [*training.model.parameters(), *training.model.buffers(), *moments]
    held = {tensor.untyped_storage() for tensor in known}
    with StorageMeter(known) as meter:
        yield found
    found.append(meter.peak + sum(storage.nbytes() for storage in held))


def kernels(device: torch.device, work: Callable[[], object]) -> tuple[int, float]:
    """Kernels that some work starts, and the seconds that they run."""
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiled:
        work()
        synchronize(device)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [
        event
        for event in profiled.events()
        if event.device_type == kind
        and not event.is_user_annotation
        and not event.name.startswith(("Memcpy", "Memset"))
        and (on_gpu or (event.name.startswith("aten::") and not event.cpu_children))
    ]
    return len(events), sum(event.time_range.elapsed_us() for event in events) / 1e6


class _Values(TorchFunctionMode):
    """Counts what asks for a tensor's value, by the line of ours that does."""

    ASKING = frozenset(
        {
            torch.Tensor.item,
            torch.Tensor.tolist,
            torch.Tensor.cpu,
            torch.Tensor.numpy,
            torch.Tensor.__bool__,
            torch.Tensor.__int__,
            torch.Tensor.__float__,
            torch.Tensor.nonzero,
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        masked = func is torch.Tensor.__getitem__ and getattr(args[1], "dtype", 0) == torch.bool
        if masked or func in self.ASKING:
            frame = traceback.extract_stack(limit=2)[0]
            self.places[_place(frame.filename, frame.lineno or 0)] += 1
        return func(*args, **(kwargs or {}))


def _place(filename: str, line: int) -> str:
    return f"{'/'.join(filename.split('/')[-3:])}:{line}"


def waits(device: torch.device, work: Callable[[], object]) -> Counter[str]:
    """Where some work makes the host wait for the device, and how often."""
    if device.type != "cuda":
        with _Values() as values:
            work()
        return values.places
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        _place(warning.filename, warning.lineno)
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )


@dataclass(frozen=True)
class Results:
    """What has to be the same on every device: of the tiny base with its own weights."""

    loss: float
    gradient: Mapping[str, torch.Tensor]
    ids: list[str]


def results(
    device: torch.device, config: Config, examples: list[Example], noise: float = 0.0
) -> Results:
    """Loss, gradients and texts of the tiny base in fp32.

    Args:
        device: Where they are computed.
        config: Of a stage on the tiny base.
        examples: Its input, which gets the prompt that the base knows.
        noise: Standard deviation of what is added to the input.
    """
    settings = {"device": str(device), "enable_tf32": False, "specaug": None}
    config = config.replace(settings, "GPU tests")
    torch.manual_seed(0)  # adapters start at random
    nano = build(config)
    stages.apply(nano.model, config)
    prompt = (nano.codec.before_audio, nano.codec.after_audio)
    examples = [
        replace(
            one,
            prompt=prompt,
            features_TF=one.features_TF + noise * torch.randn(one.features_TF.shape),
        )
        for one in examples
    ]
    loss = Objective(nano.model, config)(collate(examples).to(device), training=True).total
    loss.backward()
    gradient = {
        name: parameter.grad.cpu()
        for name, parameter in nano.model.named_parameters()
        if parameter.grad is not None
    }
    said = decode(nano, [examples], max_new_tokens=24, batch_size=len(examples))
    ids = sorted(f"{one.key}: {one.text} | {one.ctc_text}" for one in said)
    return Results(loss.item(), gradient, ids)


def tiny_config(stage: str) -> Config:
    """The tiny base as it is, in fp32."""
    return config_of(SIZES["tiny"], stage, {"llm_conf.llm_dtype": "fp32"})


@dataclass(frozen=True)
class Decoding:
    """So many rows decoded at once.

    Attributes:
        encoder_ms: Of all of them through the encoder.
        step_ms: Of one token for all of them.
    """

    encoder_ms: float
    step_ms: float


def decoding(device: torch.device, size: Size, rows: int, nano: Nano) -> Decoding:
    """Decode recordings of one length with a model that writes one token without end.

    CTC's best labels are not looked at: with random weights they are near ties.
    """
    examples = examples_of(size, rows)
    few, many = size.new_tokens
    encode_examples(nano, examples)
    encoder_s = seconds(device, lambda: encode_examples(nano, examples))
    encoded = encode_examples(nano, examples)
    list(decode(nano, [encoded], few, rows))
    few_s = min(seconds(device, lambda: list(decode(nano, [encoded], few, rows))) for _ in range(2))
    found = []
    many_s = seconds(device, lambda: found.extend(decode(nano, [encoded], many, rows)))
    assert [one.text for one in found] == [" ".join([str(ECHO)] * many)] * rows
    return Decoding(
        encoder_ms=1000 * encoder_s,
        step_ms=1000 * (many_s - few_s) / (many - few),
    )


def decoder(device: torch.device, size: Size) -> Nano:
    """A model to decode with."""
    return random_nano(size, config_of(size, "s2"), device)


@dataclass(frozen=True)
class Adapters:
    """Adapters after some updates of 1e-5.

    Attributes:
        moved: Share of lora_A's entries that are no longer what they were.
        ms: Of an update.
    """

    moved: float
    ms: float


def adapters(device: torch.device, size: Size, lora_dtype: str) -> Adapters:
    """Train stage 3 with its adapters in one precision or the other."""
    settings = {"finetune_conf.lora_dtype": lora_dtype, "optim_conf.lr": 1e-5}
    training = Training(size, "s3", device, settings)
    own = {n: p for n, p in training.model.named_parameters() if n.endswith("lora_A")}
    start = {name: parameter.detach().clone() for name, parameter in own.items()}
    took_s = seconds(device, lambda: training.run(size.adapters))
    moved = sum(int((own[name] != value).sum()) for name, value in start.items())
    total = sum(value.numel() for value in start.values())
    return Adapters(moved / total, 1000 * took_s / size.adapters)


def updates_per_s(device: torch.device, size: str, stage: str, processes: int) -> float:
    """Updates of all processes together that train at the same time (`tests.gpu.process`)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # they need it
    command = [sys.executable, "-m", "tests.gpu.process", device.type, size, stage]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return sum(one["updates"] / one["seconds"] for one in said)
