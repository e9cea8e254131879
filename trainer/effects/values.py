"""Which other value of a key is tried, and what has to hold for it to be able to act.

Most follow from the key's type. The tables say what types cannot: names of files, values that are
far enough from the present one to show on a few utterances, and why some keys cannot be tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conf import keys

Engine = Literal["stock", "here"]
ENGINES: tuple[Engine, ...] = ("stock", "here")


@dataclass(frozen=True)
class Case:
    """How a key is tried.

    Attributes:
        values: Candidates; the first that differs from the present value is taken. Without any
            its type suggests one.
        scene: Other keys for both runs, so that a difference shows; nothing that decides who reads
            what.
        twice: The first run's output is still there at the second.
    """

    values: tuple[Any, ...] = ()
    scene: Mapping[str, Any] = field(default_factory=dict)
    twice: bool = False


def other_value(name: str, current: Any, files: Mapping[str, str]) -> Any:
    """A value of a key that is not the present one.

    Args:
        name: The dotted key.
        current: Its value; of an unset key, the default of FunASR's code.
        files: Of the scene, by what they are; `@weights` in the table stands for such a one.
    """
    for value in CASES.get(name, Case()).values:
        candidate = files[value[1:]] if str(value).startswith("@") else value
        if candidate != current:
            return candidate
    default = current if current is not None else keys.all_keys()[name].default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return 2 * default if default > 0 else default + 1
    if isinstance(default, float):
        return default / 2 or 0.5
    if isinstance(default, list):
        return [item * 2 for item in default]
    return "another"


_STORE: Mapping[str, Any] = {"finetune_conf.feature_cache_mb": 16}

CASES: Mapping[str, Case] = {
    # Architecture
    "audio_encoder_conf.input_layer": Case(("linear",)),
    "audio_encoder_conf.freeze_layer_num": Case((1,)),
    "audio_encoder_conf.stochastic_depth_rate": Case((0.5,)),
    "audio_adaptor_conf.downsample_rate": Case((4, 8)),
    "ctc_decoder_conf.downsample_rate": Case((2,)),
    "llm_conf.llm_dtype": Case(("bf16", "fp32")),
    "llm_conf.load_kwargs": Case(({"attn_implementation": "eager"},)),
    "llm_conf.init_param_path": Case(("@nothing",)),
    "tokenizer_conf.init_param_path": Case(("@nothing",)),
    "llm_conf.lora_conf.target_modules": Case((["k_proj"],)),
    "llm_conf.lora_conf.bias": Case(("all",)),
    "audio_encoder": Case(("SenseVoiceEncoder",)),
    "audio_adaptor": Case(("Linear",)),
    "ctc_decoder": Case(("Linear",)),
    "model": Case(("SenseVoiceSmall",)),
    # Frontend
    "frontend_conf.fs": Case((8000, 16000)),
    "frontend_conf.dither": Case((1.0,)),
    "frontend_conf.window": Case(("hanning",)),
    "frontend_conf.n_mels": Case((40,)),
    "frontend_conf.lfr_m": Case((5,)),
    "frontend_conf.lfr_n": Case((3,)),
    "frontend_conf.filter_length_min": Case((1000,)),
    "frontend_conf.filter_length_max": Case((10,)),
    # Augmentation
    "specaug": Case((None,)),
    "specaug_conf.freq_mask_width_range": Case(([20, 30],)),
    "specaug_conf.time_mask_width_range": Case(([3, 5],)),
    "specaug_conf.time_mask_width_ratio_range": Case(([0.1, 0.2],)),
    "specaug_conf.time_warp_mode": Case(("nearest",)),
    "specaug_conf.lfr_rate": Case((3,)),
    # Training
    "optim": Case(("adam",)),
    "optim_conf.betas": Case(([0.8, 0.9],)),
    "optim_conf.eps": Case((1e-3,)),
    "scheduler": Case(("noamlr",)),
    "train_conf.accum_grad": Case((2, 1)),
    "train_conf.max_epoch": Case((1,)),
    "train_conf.grad_clip": Case((0.01,)),
    "train_conf.grad_clip_type": Case((1.0,), scene={"train_conf.grad_clip": 0.01}),
    "train_conf.early_stopping_patience": Case((1,), scene={"optim_conf.lr": 1e-30}),
    "train_conf.validate_interval": Case((2,)),
    "train_conf.save_checkpoint_interval": Case((2,)),
    "train_conf.keep_nbest_models": Case((1,)),
    "train_conf.avg_nbest_model": Case((1,)),
    "train_conf.avg_keep_nbest_models_type": Case(("loss",)),
    "train_conf.effective_save_name_excludes": Case((["ctc."],)),
    "train_conf.resume": Case(twice=True),
    # Data
    "train_data_set_list": Case(("@train list",)),
    "valid_data_set_list": Case(("@valid",)),
    "init_param": Case(("@weights",)),
    "output_dir": Case(("@directory",)),
    "dataset_conf.batch_type": Case(("example",)),
    "dataset_conf.batch_size": Case((300,)),
    "dataset_conf.max_token_length": Case((90,)),
    "dataset_conf.sort_size": Case((2,)),
    # As in a corpus that is larger than the window within which it is sorted.
    "dataset_conf.shuffle": Case((False, True), scene={"dataset_conf.sort_size": 2}),
    "dataset_conf.num_workers": Case((2,)),
    "dataset_conf.data_split_num": Case((2,)),
    "dataset_conf.batch_size_sample_max": Case((2,)),
    "dataset_conf.batch_size_token_max": Case((100,)),
    "dataset_conf.retry": Case((1,), scene={"train_data_set_list": "@broken list"}),
    "dataset_conf.min_source_length": Case((150,)),
    "dataset_conf.max_source_length": Case((150,)),
    "dataset_conf.min_target_length": Case((8,)),
    "dataset_conf.max_target_length": Case((8,)),
    "dataset_conf.multiturn_num_max": Case((1,)),
    "dataset_conf.length_scale_source": Case((0.1,)),
    "dataset_conf.use_dynamic_output_ratio": Case((1.0,)),
    "dataset_conf.min_mask_token_len": Case((3,)),
    "dataset_conf.min_non_mask_token_len": Case((1,)),
    "dataset_conf.prompt_classes": Case((None,)),
    "dataset_conf.prompt_conf.max_neg_hotwords_num": Case((3,)),
    "dataset_conf.prompt_conf.min_neg_hotwords_num": Case((2,)),
    "dataset_conf.prompt_conf.chinese_hotwords_list": Case(("@hot words",)),
    "dataset_conf.prompt_conf.english_hotwords_list": Case(("@hot words",)),
    "dataset_conf.dataloader": Case(("DataloaderIterable",)),
    # Runtime
    "hub": Case(("hf", "ms")),
    "max_length": Case((3,)),
    "llm_kwargs": Case(({"do_sample": True, "temperature": 10.0},)),
    "finetune_conf.stage": Case(("custom",)),
    "finetune_conf.num_threads": Case((2,)),
    "finetune_conf.engine": Case(("stock",)),
    "finetune_conf.lora_dtype": Case(("llm",)),
    "finetune_conf.pad_frames_to": Case((64,)),
    # A rate at which the second loss is no number any more.
    "finetune_conf.max_skipped_steps": Case((1000,), scene={"optim_conf.lr": 1e30}),
    "finetune_conf.eval_max_s": Case((0.01,)),
    "finetune_conf.valid_subset": Case((1,)),
    "finetune_conf.feature_cache_dir": Case(("@directory",), scene=_STORE),
    "finetune_conf.cache_frozen_outputs": Case(scene=_STORE),
    "finetune_conf.channel": Case(("@channel",)),
    "finetune_conf.silence_data_set_list": Case(("@valid",)),
    "finetune_conf.keywords": Case(("@hot words",)),
    "finetune_conf.max_new_tokens": Case((3,)),
    "finetune_conf.eval_batch_size": Case((1,)),
    "finetune_conf.feature_cache_mb": Case((1,)),
    "finetune_conf.wideband_data_set_list": Case(("@valid",)),
    "finetune_conf.test_data_set_list": Case(("@valid",)),
    "finetune_conf.allow_unknown": Case((["another"],)),
}

_TRAINED_LORA: Mapping[str, Any] = {
    "llm_conf.use_lora": True,
    "llm_conf.lora_conf.freeze_lora": False,
}

_DRAWN: Mapping[str, Any] = {
    "dataset_conf.prompt_conf.max_neg_hotwords_num": 3,
    "dataset_conf.prompt_conf.min_neg_hotwords_num": 2,
}

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "model_conf.length_normalized_loss": {"train_conf.accum_grad": 2},
    "finetune_conf.cache_frozen_outputs": {"specaug": None},
    "finetune_conf.channel_share": {"finetune_conf.channel": "@channel"},
    # Next to an LLM in fp32 both of its values are the same.
    "finetune_conf.lora_dtype": {**_TRAINED_LORA, "llm_conf.llm_dtype": "bf16"},
    "finetune_conf.frozen_dropout": {"audio_adaptor_conf.dropout_rate": 0.1},
    "llm_conf.lora_conf.r": _TRAINED_LORA,
    "llm_conf.lora_conf.lora_alpha": _TRAINED_LORA,
    "llm_conf.lora_conf.lora_dropout": _TRAINED_LORA,
    "llm_conf.lora_conf.target_modules": _TRAINED_LORA,
    "llm_conf.lora_conf.freeze_lora": {"llm_conf.use_lora": True},
    "specaug_conf.time_warp_window": {"specaug_conf.apply_time_warp": True},
    "specaug_conf.time_warp_mode": {"specaug_conf.apply_time_warp": True},
    "dataset_conf.min_mask_token_len": {"dataset_conf.use_dynamic_output_ratio": 1.0},
    "dataset_conf.min_non_mask_token_len": {"dataset_conf.use_dynamic_output_ratio": 1.0},
    "dataset_conf.drop_last": {"dataset_conf.batch_type": "example"},
    "dataset_conf.length_scale_source": {"dataset_conf.batch_type": "example"},
    "dataset_conf.prompt_conf.max_neg_hotwords_num": {
        "dataset_conf.prompt_conf.chinese_hotwords_list": "@hot words"
    },
    "dataset_conf.prompt_conf.min_neg_hotwords_num": {
        "dataset_conf.prompt_conf.chinese_hotwords_list": "@hot words",
        "dataset_conf.prompt_conf.max_neg_hotwords_num": 3,
    },
    "dataset_conf.prompt_conf.chinese_hotwords_list": _DRAWN,
    "dataset_conf.prompt_conf.english_hotwords_list": _DRAWN,
}
"""Keys that act only together with others. Where a stage does not set those, the row says what the
effect is with them."""

UNTRIED: Mapping[str, Mapping[Engine, str]] = {
    "audio_encoder_conf.hub": {
        "stock": "would ask a hub on the network",
        "here": "would ask a hub on the network",
    },
    "device": {"stock": "is held on the CPU", "here": "is held on the CPU"},
    "train_conf.use_bf16": {"stock": "computes in 16 bits on GPUs only"},
    "train_conf.use_fp16": {"stock": "computes in 16 bits on GPUs only"},
    "train_conf.use_fsdp": {"stock": "needs several GPUs"},
    "train_conf.use_deepspeed": {"stock": "needs DeepSpeed and a GPU"},
    "train_conf.deepspeed_config": {"stock": "needs DeepSpeed and a GPU"},
    "train_conf.find_unused_parameters": {"stock": "needs several GPUs"},
}
"""Keys that one process on a CPU without network cannot try: decided by the trace."""

AT_LOADING: Mapping[str, str] = {
    "finetune_conf.stage": "conf/load.py:Config",
    "finetune_conf.allow_unknown": "conf/load.py:load_config",
}
"""Keys of ours that act when the configuration is loaded, before a run can be watched."""

_NEIGHBOURS = "the model takes the width of its neighbour instead"
_EVAL_MODE = "what is frozen stays in eval mode"
_ENCODER_FROZEN = "the encoder is frozen, so CTC cannot reach it"
_NOTHING_KEPT = "where the encoder is frozen it keeps nothing for a backward pass"
_LORA = "with LoRA the LLM's own weights stay frozen"
_MATRICES = "where only LoRA trains there are no norms and biases"
_NO_CTC = "training computes no CTC loss"
_SPECIAL = "concerns special symbols, which transcripts do not hold"
_WEIGHT = "only the weight that forward returns changes, which nothing uses"

EXPLAINED: Mapping[tuple[str, Engine], str] = {
    ("audio_adaptor_conf.encoder_dim", "stock"): _NEIGHBOURS,
    ("audio_adaptor_conf.encoder_dim", "here"): _NEIGHBOURS,
    ("audio_adaptor_conf.llm_dim", "stock"): _NEIGHBOURS,
    ("audio_adaptor_conf.llm_dim", "here"): _NEIGHBOURS,
    ("ctc_decoder_conf.encoder_dim", "stock"): _NEIGHBOURS,
    ("ctc_decoder_conf.encoder_dim", "here"): _NEIGHBOURS,
    ("audio_encoder_conf.dropout_rate", "here"): _EVAL_MODE,
    ("audio_encoder_conf.attention_dropout_rate", "here"): _EVAL_MODE,
    ("audio_adaptor_conf.dropout_rate", "here"): _EVAL_MODE,
    ("audio_adaptor_conf.attention_dropout_rate", "here"): _EVAL_MODE,
    ("ctc_decoder_conf.dropout_rate", "here"): _EVAL_MODE,
    ("ctc_decoder_conf.attention_dropout_rate", "here"): _EVAL_MODE,
    ("ctc_decoder_conf.dropout_rate", "stock"): _NO_CTC,
    ("ctc_decoder_conf.attention_dropout_rate", "stock"): _NO_CTC,
    ("ctc_decoder_conf.freeze", "stock"): f"{_NO_CTC}, so nothing of it learns",
    ("model_conf.length_normalized_loss", "stock"): _WEIGHT,
    ("audio_adaptor_conf.use_low_frame_rate", "here"): "one audio token per 8 frames, always",
    ("audio_encoder_conf.activation_checkpoint", "here"): _NOTHING_KEPT,
    ("audio_encoder_conf.activation_checkpoint", "stock"): _NOTHING_KEPT,
    ("detach_ctc_decoder", "here"): _ENCODER_FROZEN,
    ("llm_conf.freeze", "here"): _LORA,
    ("finetune_conf.decay_norm_and_bias", "here"): _MATRICES,
    ("dataset_conf.ctc_tokenizer_conf.num_languages", "stock"): _SPECIAL,
    ("dataset_conf.ctc_tokenizer_conf.num_languages", "here"): _SPECIAL,
    ("dataset_conf.ctc_tokenizer_conf.is_multilingual", "stock"): _SPECIAL,
    ("dataset_conf.ctc_tokenizer_conf.is_multilingual", "here"): _SPECIAL,
    ("train_conf.use_ddp", "stock"): "the command decides by the number of processes",
}
"""Why a key that is read changes nothing, where the trace itself does not tell."""

BY_STAGE = frozenset({_EVAL_MODE, _ENCODER_FROZEN, _NOTHING_KEPT, _LORA, _MATRICES})
"""Explanations that hold in some stages only."""

_BESIDE = "here: configuration.json beside the weights names the file"

REMARKS: Mapping[str, str] = {
    "llm_conf.init_param_path": _BESIDE,
    "tokenizer_conf.init_param_path": _BESIDE,
    "dataset_conf.ctc_tokenizer_conf.vocab_path": _BESIDE,
    "finetune_conf.cache_frozen_outputs": "acts where the encoder is frozen",
    "input_size": "the frontend's output is taken",
    "specaug_conf.time_mask_width_ratio_range": "stands in the place of time_mask_width_range",
    "hub": "asked where `model` is a hub's name, which none of the stages gives to training",
}
"""What else has to be said."""
