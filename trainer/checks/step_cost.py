"""What training and evaluating a configuration will take: memory and operations, without either.

A step is the training's own (``losses.Objective`` and its backward pass), and a batch is decoded as
in evaluation, both on PyTorch's meta device, whose tensors have shapes and no values. Each storage
is counted from its making to its release, so what the backward pass keeps and what is there for a
moment only are both in the peak. What is not: an allocator's gaps, work space inside kernels, and
on a GPU CUDA's own few hundred MB.
"""

from __future__ import annotations

import copy
import gc
import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from conf.load import Config
from trainer.data.batch import IGNORED_LABEL, Batch, num_audio_tokens
from trainer.evaluation.greedy import Writer
from trainer.funasr_parts import registered
from trainer.model import lora, stages
from trainer.model.activation_checkpointing import checkpoint_activations
from trainer.model.encoded import rows_encoded
from trainer.model.losses import Objective, ctc_best, embed, encode

PROMPT_TOKENS = 30
"""Tokens around audio and text: system and user turn, and their marks."""
PROGRAM = 900_000_000
"""Bytes of Python, PyTorch, transformers and FunASR in a process."""
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


def forecast(
    config: Config,
    shape: BatchShape,
    *,
    llm: Mapping[str, Any] | Path,
    count_flops: bool = True,
) -> Forecast:
    """Runs one training step of shapes only.

    Args:
        config: Says what trains, in which number formats, and the architecture but the LLM's.
        shape: The batch.
        llm: The LLM's ``config.json`` or the directory it lies in.
        count_flops: Counting takes as long as all the rest; without it they are 0.
    """
    model = meta_model(config, llm)
    stages.apply(model, config)
    stages.set_training_mode(model)
    tensors = {*model.parameters(), *model.buffers()}
    weights = _bytes(tensors)
    gradients = _bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
    objective = Objective(model, config)
    batch = _batch(shape, model, num_features(config))
    operations = FlopCounterMode(display=False) if count_flops else None
    memory = StorageMeter(tensors)
    shapes = _Shapes(model, shape, half=config["train_conf.use_bf16"])
    # Layers that are computed again leave reference cycles: how much is held at the peak depends on
    # when the collector runs next, so each forecast begins with nothing for it to do.
    gc.collect()
    with torch.device("meta"), operations or nullcontext(), memory, shapes:
        loss = objective(batch, training=True).total
        kept = memory.now
        if loss.requires_grad:
            shapes.forward = False
            _backward(loss)
    return Forecast(
        weights=weights,
        moments=MOMENTS * gradients,
        gradients=gradients,
        kept=kept,
        step=memory.peak,
        flops=operations.get_total_flops() + shapes.attention_flops if operations else 0,
    )


def evaluation_forecast(
    config: Config, shape: BatchShape, *, llm: Mapping[str, Any] | Path, device: str
) -> int:
    """Bytes that decoding and scoring hold at most beside weights and optimizer.

    Every text is taken to run to `finetune_conf.max_new_tokens`, as those of a model do that writes
    without end, and the set to be longer than a batch, so that the next one is encoded and its loss
    computed while the texts of the one before are written.

    Args:
        config: As for :func:`forecast`.
        shape: The batch; its text tokens are those of the references.
        llm: As for :func:`forecast`.
        device: `cpu` or `cuda`, which take a batch through the encoder in parts or whole.
    """
    model = meta_model(config, llm).eval()
    objective = Objective(model, config)
    rows = rows_encoded(device, shape.utterances)
    part = replace(shape, utterances=rows)
    count = -(-shape.utterances // rows)
    memory = StorageMeter({*model.parameters(), *model.buffers()})
    gc.collect()  # as in `forecast`, and for its reason
    with torch.no_grad(), torch.device("meta"), memory:
        decoded = _batch(replace(part, text_tokens=0), model, num_features(config))
        # As many tokens before the audio as will come behind it: the same keys and values, without
        # a step for each.
        cap = [0] * int(config["finetune_conf.max_new_tokens"])
        with _Shapes(model, replace(part, utterances=rows * count), half=False):
            weight = model.llm.get_input_embeddings().weight
            prompts = weight.new_empty(rows * count, decoded.input_ids_BL.shape[1], weight.shape[1])
            writer: Writer[int] = Writer(model.llm, cap, max_new_tokens=2)
            writer.add(list(enumerate(prompts)))
            writer.step()
        with _Shapes(model, part, half=False):
            lengths_B = decoded.num_frames_B
            encoded = [
                encode(model, torch.empty_like(decoded.features_BTF), lengths_B)[0]
                for _ in range(count)
            ]
            scored = _batch(part, model, encoded[0].shape[-1])
            objective(replace(scored, level="encoded"), training=False)
            waiting = []
            for encoded_BTD in encoded:
                ctc_best(model, encoded_BTD, lengths_B)
                waiting.append(embed(model, decoded, encoded_BTD, lengths_B))
    return memory.peak


def fits(
    config: Config,
    utterance: BatchShape,
    memories: Sequence[float],
    *,
    llm: Mapping[str, Any] | Path,
) -> tuple[int, ...]:
    """Utterances of one size that GPUs can train on at once.

    The peak grows with a straight line once the batch outweighs the gradients: the line through
    two batches of some size is that one.

    Args:
        config: As for :func:`forecast`.
        utterance: A batch of one.
        memories: Bytes of each GPU.
        llm: As for :func:`forecast`.

    Returns:
        A number for each of ``memories``; 0 where not even one utterance fits.
    """

    def peak(utterances: int) -> int:
        shape = replace(utterance, utterances=utterances)
        return forecast(config, shape, llm=llm, count_flops=False).peak

    few, many = 16, 32
    least, base = peak(1), peak(few)
    slope = (peak(many) - base) / (many - few)
    return tuple(
        max(1, int(few + (memory - base) / slope)) if least <= memory else 0 for memory in memories
    )


def host_bytes(step: Forecast) -> int:
    """What a fine-tune on the CPU takes beside a step or an evaluation.

    The program with its libraries; a copy of the initial weights that are trained, from which each
    epoch's distance is measured; and the memory of one step's gradients, which the C library does
    not give back, since it lies between the optimizer's moments. An epoch's end, with its copies of
    the trained weights, fills that and what the step has let go.
    """
    return PROGRAM + 2 * step.gradients


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
    vocabulary = str(Path(__file__).parents[1] / "demo" / "base" / "multilingual.tiktoken")
    values["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = vocabulary
    arguments = {**values, **values.pop("model_conf"), "input_size": num_features(config)}
    checkpointed = {
        part: bool(values[f"{part}_conf"].pop("activation_checkpoint", False))
        for part in ("audio_encoder", "llm")
    }
    with _directory(llm) as directory, torch.device("meta"):
        values["llm_conf"]["init_param_path"] = str(directory)
        model = registered("model_classes", values["model"])(**arguments)
    lora.set_precision(model, config["finetune_conf.lora_dtype"])
    checkpoint_activations(model, **checkpointed)
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
    with torch.device("meta"):
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
            num_target_tokens=shape.utterances * shape.text_tokens,
        )


def materialize(model: Any) -> None:
    """Gives a meta model memory on the CPU, in place; values are whatever was there."""
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


def _backward(loss: torch.Tensor) -> None:
    """As ``loss.backward()``, which would switch a function mode off for layers computed again."""
    torch.autograd.graph._engine_run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), True, accumulate_grad=True
    )


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


class _Shapes(TorchFunctionMode):
    """Answers what a step asks of its tensors' values and device, which here have neither.

    Args:
        model: On the meta device.
        shape: Of the batch.
        half: Calculate as under autocast to bfloat16, which does not reach the meta device.
    """

    def __init__(self, model: Any, shape: BatchShape, *, half: bool) -> None:
        super().__init__()
        self.attention_flops = 0
        self.forward = True
        self._utterances = shape.utterances
        self._text_tokens = shape.text_tokens
        self._half = half
        self._cast: dict[int, torch.Tensor] = {}
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
        self._cast.clear()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.forward and func in _DEVICE:  # a layer computed again is compared with the first
            return _DEVICE[func]
        if func is torch.Tensor.to:
            args = tuple("meta" if isinstance(arg, torch.device) else arg for arg in args)
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        if func is F.ctc_loss:
            return _CtcShape.apply(args[0])  # type: ignore[no-untyped-call]
        if self._half and func in _HALF:
            args = tuple(map(self._to_half, args))
        if func is F.scaled_dot_product_attention:
            return self._attend(*args[:3])
        if func is torch.Tensor.tolist:  # of lengths, for an adaptor's mask
            return [self._length] * self._utterances
        if func is torch.Tensor.new and isinstance(args[1], list):
            return torch.zeros(len(args[1]), dtype=args[0].dtype)
        if func is torch.Tensor.__bool__:  # whether an attention mask hides nothing
            return False
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            tensor, mask = args
            per_utterance = self._chosen.get(mask.shape[1], self._text_tokens)
            number = torch.zeros(mask.shape[0] * per_utterance, dtype=torch.long)
            return tensor.flatten(0, 1)[number]
        return func(*args, **kwargs)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        product_flops = 2 * query.numel() * key.shape[-2]

        def count(products: int) -> None:
            self.attention_flops += products * product_flops

        attended: torch.Tensor = _AttentionShape.apply(query, key, value, count)  # type: ignore[no-untyped-call]
        return attended

    def _to_half(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        # Weights are cast once in a step. Where nothing learns activations are leaves too, and a
        # later one may have the id of one that is gone: those are cast each time.
        if not isinstance(value, torch.nn.Parameter):
            return value.to(torch.bfloat16)
        if id(value) not in self._cast:
            self._cast[id(value)] = value.to(torch.bfloat16)
        return self._cast[id(value)]

    def _note_length(self, adaptor: Any, args: tuple[Any, ...]) -> None:
        self._length = _adapted(adaptor, args[0].shape[1])


_DEVICE: Mapping[Any, Any] = {
    torch.Tensor.device.__get__: torch.device("cpu"),
    torch.Tensor.is_cpu.__get__: True,  # type: ignore[attr-defined]
}
"""What a tensor says of its device: autocast knows no meta device."""

_HALF = frozenset(
    {
        F.linear,
        F.conv1d,
        F.scaled_dot_product_attention,
        torch.matmul,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.bmm,
    }
)
"""What autocast calculates in 16 bits."""


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


class _AttentionShape(torch.autograd.Function):
    """Fused attention: it keeps its inputs, its output and a sum per query.

    Scores and their products with values are two products forward, five backward (one is of the
    scores again).
    """

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        count: Callable[[int], None],
    ) -> torch.Tensor:
        attended = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        context.save_for_backward(query, key, value, attended, sums)
        context.count = count
        count(2)
        return attended

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        context.count(5)
        return (*(torch.empty_like(tensor) for tensor in context.saved_tensors[:3]), None)


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


class StorageMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that live, and the most there were, while it is entered.

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
