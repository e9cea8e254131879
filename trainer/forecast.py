"""What a training step of a configuration will take: memory and operations, without any of either.

The step is the training's own (``losses.Objective`` and its backward pass), run on PyTorch's fake
tensors, which have shapes and no values. Each storage is counted from its making to its release,
so what the backward pass keeps and what is there for a moment only are both in the peak.
"""

from __future__ import annotations

import copy
import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from conf.load import Config
from trainer import stages
from trainer.batch import IGNORED_LABEL, Batch, num_audio_tokens
from trainer.funasr_parts import registered
from trainer.losses import Objective
from trainer.recompute import recompute_layers

PROMPT_TOKENS = 30
"""Tokens around audio and text: system and user turn, and their marks."""
MOMENTS = 2
"""Tensors that Adam keeps for each trainable weight."""

QWEN3_06B: Mapping[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}
"""Published sizes of the released model's LLM."""


@dataclass(frozen=True)
class BatchShape:
    """A padded batch's sizes.

    Attributes:
        utterances: In the batch.
        num_frames: Of the longest, after stacking (60 ms each).
        text_tokens: Target tokens of one utterance.
    """

    utterances: int
    num_frames: int
    text_tokens: int


@dataclass(frozen=True)
class Forecast:
    """Bytes and operations of one training step.

    Attributes:
        weights: All parameters and buffers.
        moments: The optimizer's state.
        gradients: Of the trainable weights.
        kept: What the forward pass keeps for the backward pass.
        step: Most that forward and backward pass hold at once beside weights and moments,
            gradients included.
        flops: Of forward and backward pass; a multiplication and an addition are two.
    """

    weights: int
    moments: int
    gradients: int
    kept: int
    step: int
    flops: int

    @property
    def first_peak(self) -> int:
        """Of the first step, at whose beginning the optimizer has no state yet."""
        return self.weights + max(self.step, self.gradients + self.moments)

    @property
    def peak(self) -> int:
        """Of every step after it."""
        return self.weights + self.moments + self.step


def forecast(config: Config, shape: BatchShape, *, llm: Mapping[str, Any] | Path) -> Forecast:
    """Runs one training step of shapes only.

    Args:
        config: Says what trains, in which number formats, and the architecture but the LLM's.
        shape: The batch.
        llm: The LLM's ``config.json`` or the directory it lies in.
    """
    model = meta_model(config, llm)
    with FakeTensorMode():
        materialize(model)
        return _forecast(config, shape, model)


def _forecast(config: Config, shape: BatchShape, model: Any) -> Forecast:
    stages.apply(model, config)
    stages.set_training_mode(model)
    tensors = {*model.parameters(), *model.buffers()}
    weights = _bytes(tensors)
    gradients = _bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
    objective = Objective(model, config)
    batch = _batch(shape, model, num_features(config))
    operations = FlopCounterMode(display=False)
    memory = _Memory(tensors)
    with operations, memory, _Shapes(model, shape):
        with torch.autocast("cpu", torch.bfloat16, enabled=config["train_conf.use_bf16"]):
            loss = objective(batch, training=True).total
        kept = memory.now
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    return Forecast(
        weights=weights,
        moments=MOMENTS * gradients,
        gradients=gradients,
        kept=kept,
        step=memory.peak,
        flops=operations.get_total_flops(),
    )


def num_features(config: Config) -> int:
    """Feature values of a stacked frame."""
    return int(config["frontend_conf.n_mels"] * config["frontend_conf.lfr_m"])


def meta_model(config: Config, llm: Mapping[str, Any] | Path) -> Any:
    """FunASRNano of a configuration on the meta device.

    Args:
        config: The architecture but for the LLM's.
        llm: The LLM's ``config.json`` or the directory it lies in.
    """
    values: dict[str, Any] = copy.deepcopy(config.values)
    # Any vocabulary will do: the size of the CTC layer is ctc_vocab_size.
    vocabulary = str(Path(__file__).parent / "demo" / "base" / "multilingual.tiktoken")
    values["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = vocabulary
    arguments = {**values, **values.pop("model_conf"), "input_size": num_features(config)}
    recomputed = {
        part: bool(values[f"{part}_conf"].pop("activation_checkpoint", False))
        for part in ("audio_encoder", "llm")
    }
    with _directory(llm) as directory, torch.device("meta"):
        values["llm_conf"]["init_param_path"] = str(directory)
        model = registered("model_classes", values["model"])(**arguments)
    recompute_layers(model, **recomputed)
    return model


@contextmanager
def _directory(llm: Mapping[str, Any] | Path) -> Iterator[Path]:
    if isinstance(llm, Path):
        yield llm
        return
    with tempfile.TemporaryDirectory() as name:
        Path(name, "config.json").write_text(json.dumps(dict(llm)), encoding="utf-8")
        yield Path(name)


def _batch(shape: BatchShape, model: Any, features: int) -> Batch:
    """Utterances of one length, so that padding counts as what it costs."""
    num_audio = num_audio_tokens(shape.num_frames)
    length = PROMPT_TOKENS + num_audio + shape.text_tokens
    # The two masks that tensors are indexed with are told apart by their length.
    if length - 1 == _adapted(model.audio_adaptor, shape.num_frames):
        length += 1
    size = (shape.utterances, length)
    with torch.device("cpu"):
        per_utterance = torch.full((shape.utterances,), 0)
        return Batch(
            keys=(),
            features_BTF=torch.empty(shape.utterances, shape.num_frames, features),
            num_frames_B=per_utterance,
            num_audio_tokens_B=per_utterance,
            input_ids_BL=torch.zeros(size, dtype=torch.long),
            attention_mask_BL=torch.ones(size, dtype=torch.long),
            audio_mask_BL=torch.zeros(size, dtype=torch.bool),
            labels_BL=torch.full(size, IGNORED_LABEL),
            ctc_labels_BU=torch.zeros(shape.utterances, shape.text_tokens, dtype=torch.long),
            num_ctc_labels_B=per_utterance,
        )


def materialize(model: Any) -> None:
    """Puts tensors without values yet in the place of a meta model's, in place.

    Within FakeTensorMode they stay shapes only, but know a device, which autocast and the choice
    of an attention kernel ask for.
    """
    moved: dict[int, Any] = {}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    moved[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, torch.nn.Parameter):
                        moved[id(tensor)] = torch.nn.Parameter(moved[id(tensor)])
                own[name] = moved[id(tensor)]


def _adapted(adaptor: Any, num_frames: int) -> int:
    """Frames that an adaptor makes of so many."""
    return -(-num_frames // int(adaptor.k))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


class _Shapes(TorchFunctionMode):
    """Answers what a step asks of its tensors' values, which here have none."""

    def __init__(self, model: Any, shape: BatchShape) -> None:
        super().__init__()
        self._shape = shape
        self._length = shape.num_frames
        self._hooks = [
            adaptor.register_forward_pre_hook(self._note_length)
            for adaptor in (model.audio_adaptor, model.ctc_decoder)
        ]
        self._chosen = {
            _adapted(model.audio_adaptor, shape.num_frames): num_audio_tokens(shape.num_frames)
        }

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.ctc_loss:
            return _CtcShape.apply(args[0])  # type: ignore[no-untyped-call]
        if func is torch.Tensor.item:  # of lengths, for an adaptor's mask
            return self._length
        if func is torch.Tensor.new and isinstance(args[1], list):
            return torch.zeros(len(args[1]), dtype=args[0].dtype)
        if func is torch.Tensor.__bool__:
            return False
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            tensor, mask = args
            per_utterance = self._chosen.get(mask.shape[1], self._shape.text_tokens)
            number = torch.zeros(mask.shape[0] * per_utterance, dtype=torch.long)
            return tensor.flatten(0, 1)[number]
        return func(*args, **kwargs)

    def _note_length(self, adaptor: Any, args: tuple[Any, ...]) -> None:
        self._length = _adapted(adaptor, args[0].shape[1])


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


class _CtcShape(torch.autograd.Function):
    """CTC's part in memory: its input is kept, and its gradient is as large."""

    @staticmethod
    def forward(context: Any, log_probs_TBV: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(log_probs_TBV)
        return log_probs_TBV.new_zeros(())

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        [log_probs_TBV] = context.saved_tensors
        return torch.zeros_like(log_probs_TBV)


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that live, and the most there were.

    Args:
        known: Tensors that are not counted.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size
