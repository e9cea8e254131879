"""Every key a configuration may hold: type, default, meaning with unit, role and severity.

The defaults of FunASR's keys are those of FunASR's code (1.4.16): what a key left out of a
standalone file would get there. They are not filled in: a key that nobody sets stays unset. Only
`finetune_conf`, the block of our own trainer, is always complete.

`conf.keys` gives the same as a table, by dotted key; documents are made from it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Role = Literal[
    "architecture",
    "frontend",
    "tokenizer",
    "optimization",
    "augmentation",
    "data",
    "checkpointing",
    "runtime",
    "ours",
]
Severity = Literal["critical", "important", "minor"]

MODEL_ROLES: frozenset[Role] = frozenset({"architecture", "frontend", "tokenizer"})
"""Keys of these roles belong to the weights and come from the config.yaml beside them."""


@dataclass(frozen=True)
class Is:
    """What a field is, where that differs from its block."""

    role: Role | None = None
    severity: Severity | None = None


TRAINS = Is("optimization", "critical")
TRAINING = Is("optimization", "important")
CRITICAL = Is(severity="critical")
IMPORTANT = Is(severity="important")
MINOR = Is(severity="minor")

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[list[int], Field(min_length=2, max_length=2)]


class Block(BaseModel):
    """A block of keys; `role` and `severity` are its fields' unless they say otherwise."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
    role: ClassVar[Role]
    severity: ClassVar[Severity] = "minor"


class ModelConf(Block):
    """Arguments of the model class itself."""

    role = "optimization"
    severity = "important"

    lsm_weight: Share = 0.0
    """Label smoothing of the LLM's loss, as a share of the probability mass."""
    length_normalized_loss: bool = False
    """Weigh the batches of one update by their text tokens; false counts each batch the same."""


class AudioEncoderConf(Block):
    """The speech encoder (SenseVoiceEncoderSmall)."""

    role = "architecture"
    severity = "important"

    freeze: Annotated[bool, TRAINS] = True
    """Keep the encoder's weights as they are; false trains it."""
    freeze_layer_num: Annotated[int, TRAINING] = -1
    """Number of lower encoder blocks to keep frozen; -1 for none."""
    output_size: Positive = 256
    """Width of the encoder's output, in channels."""
    attention_heads: Positive = 4
    """Number of attention heads per block."""
    linear_units: Positive = 2048
    """Width of the feed-forward layers, in channels."""
    num_blocks: Positive = 6
    """Number of blocks of the main encoder."""
    tp_blocks: Count = 0
    """Number of blocks after the main encoder."""
    dropout_rate: Share = 0.1
    """Share of activations dropped in training."""
    positional_dropout_rate: Share = 0.1
    """Share of activations dropped after the positional encoding, in training."""
    attention_dropout_rate: Share = 0.0
    """Share of attention weights dropped in training."""
    stochastic_depth_rate: Share = 0.0
    """Share of residual branches skipped in training."""
    input_layer: str | None = "conv2d"
    """Kind of the input layer; `pe` adds positions and nothing else."""
    pos_enc_class: str = "SinusoidalPositionEncoder"
    """Class of the positional encoding."""
    normalize_before: bool = True
    """Normalise before each sub-layer (true) or after it."""
    concat_after: bool = False
    """Concatenate a sub-layer's input and output instead of adding them."""
    positionwise_layer_type: str = "linear"
    """Kind of the feed-forward layers."""
    positionwise_conv_kernel_size: Positive = 1
    """Kernel of the feed-forward layers if they are convolutions, in frames."""
    padding_idx: int = -1
    """Index of the padding symbol; speech has none (-1)."""
    kernel_size: Positive = 11
    """Kernel of the memory convolution (FSMN), in frames."""
    sanm_shfit: Count = 0
    """Shift of the memory convolution to one side, in frames; the key is spelt so upstream."""
    selfattention_layer_type: str = "sanm"
    """Kind of the self-attention."""
    feat_permute: bool = False
    """Swap time and features of the input where an export needs it."""
    activation_checkpoint: Annotated[bool, TRAINING] = False
    """Save memory by computing activations again in the backward pass; upstream's raises."""
    hub: str | None = None
    """Hub that an encoder of its own is taken from; null builds the named class."""


class LoraConf(Block):
    """Low-rank adapters in the LLM; they exist only with `use_lora: true`."""

    role = "optimization"
    severity = "important"

    freeze_lora: Annotated[bool, CRITICAL] = False
    """Keep the adapters as they are; false trains them."""
    task_type: Annotated[str, MINOR] = "CAUSAL_LM"
    """Kind of task, in the words of the peft library."""
    r: Positive = 16
    """Rank of the adapters."""
    lora_alpha: Positive = 32
    """Scale of the adapters; what is added is multiplied by lora_alpha / r."""
    lora_dropout: Share = 0.05
    """Share of the adapters' inputs dropped in training."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases train with the adapters."""
    target_modules: list[str] = ["q_proj", "v_proj"]
    """Names of the LLM's linear layers that get an adapter."""
    init_param_path: Annotated[str | None, MINOR] = ""
    """File of trained adapters to start from; empty for new ones."""


class LlmConf(Block):
    """The language model that writes the text."""

    role = "architecture"
    severity = "important"

    freeze: Annotated[bool, TRAINS] = True
    """Keep the LLM's own weights as they are; false trains all of them."""
    use_lora: Annotated[bool, TRAINS] = False
    """Put low-rank adapters into the LLM."""
    lora_conf: LoraConf = LoraConf()
    hub: Annotated[str | None, MINOR] = None
    """Hub that the LLM's files were taken from."""
    llm_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the LLM's weights and computation."""
    init_param_path: str | None = None
    """Folder of the LLM's config and tokenizer, relative to the model directory."""
    activation_checkpoint: Annotated[bool, TRAINING] = False
    """Save memory by computing activations again in the backward pass."""
    load_kwargs: dict[str, Any] = {}
    """Further arguments of the LLM's constructor."""


class AudioAdaptorConf(Block):
    """The bridge from the encoder to the LLM."""

    role = "architecture"
    severity = "important"

    freeze: Annotated[bool, TRAINS] = False
    """Keep the adaptor's weights as they are; false trains it."""
    downsample_rate: Positive = 2
    """Encoder frames that become one adaptor frame."""
    use_low_frame_rate: bool = False
    """Give the LLM about one audio token per 8 encoder frames."""
    ffn_dim: Positive = 2048
    """Width of the adaptor's first layer, in channels."""
    llm_dim: Positive = 4096
    """Width of the output, in channels; the model sets it to the LLM's."""
    encoder_dim: Positive = 1280
    """Width of the input, in channels; the model sets it to the encoder's."""
    n_layer: Count = 2
    """Number of Transformer blocks."""
    attention_heads: Positive = 8
    """Number of attention heads per block."""
    attention_dropout_rate: Share = 0.0
    """Share of attention weights dropped in training."""
    dropout_rate: Share = 0.0
    """Share of activations dropped in training."""


class CtcDecoderConf(Block):
    """The Transformer between the encoder and the CTC output layer."""

    role = "architecture"
    severity = "important"

    freeze: Annotated[bool, TRAINS] = False
    """Keep the CTC decoder's weights as they are; false trains it."""
    downsample_rate: Positive = 2
    """Encoder frames that become one CTC frame."""
    ffn_dim: Positive = 2048
    """Width of the decoder's first layer, in channels."""
    llm_dim: Positive = 4096
    """Width of the output, in channels."""
    encoder_dim: Positive = 1280
    """Width of the input, in channels; the model sets it to the encoder's."""
    n_layer: Count = 2
    """Number of Transformer blocks."""
    attention_heads: Positive = 8
    """Number of attention heads per block."""
    attention_dropout_rate: Share = 0.0
    """Share of attention weights dropped in training."""
    dropout_rate: Share = 0.0
    """Share of activations dropped in training."""
    init_param_path: str | None = None
    """File of CTC decoder weights to start from, before the checkpoint is loaded."""


class CtcConf(Block):
    """The CTC output layer and its loss."""

    role = "architecture"

    dropout_rate: Annotated[Share, TRAINING] = 0.0
    """Share of activations dropped before the output layer, in training."""
    ctc_type: str = "builtin"
    """Implementation of the loss; `builtin` is PyTorch's."""
    reduce: bool = True
    """Sum the loss over the utterances of a batch."""
    ignore_nan_grad: bool = True
    """Let an utterance whose loss is not finite count as zero."""
    extra_linear: bool = True
    """Have an output layer of its own (true) or take the decoder's output as scores."""


class FrontendConf(Block):
    """From samples to features (WavFrontend)."""

    role = "frontend"
    severity = "important"

    fs: Annotated[Positive, CRITICAL] = 16000
    """Sample rate that audio is brought to and features are computed at, in Hz."""
    dither: Annotated[float, Field(ge=0)] = 1.0
    """Random noise added to the samples, in 16-bit steps; 0 makes features repeat exactly."""
    window: str = "hamming"
    """Shape of the analysis window."""
    n_mels: Positive = 80
    """Number of mel filters."""
    frame_length: Positive = 25
    """Length of the analysis window, in ms."""
    frame_shift: Positive = 10
    """Step between windows, in ms."""
    lfr_m: Positive = 1
    """Number of frames stacked into one (low frame rate)."""
    lfr_n: Positive = 1
    """Step between stacked frames, in frames; 6 gives one per 60 ms."""
    cmvn_file: str | None = None
    """File of feature means and variances; null for none."""
    snip_edges: bool = True
    """Drop the last window if it is not full."""
    upsacle_samples: bool = True
    """Scale samples to the 16-bit range; the key is spelt so upstream."""
    filter_length_min: int = -1
    """Shortest utterance, in frames; -1 for no limit."""
    filter_length_max: int = -1
    """Longest utterance, in frames; -1 for no limit."""


class SpecaugConf(Block):
    """Masking of features in training (SpecAugLFR)."""

    role = "augmentation"
    severity = "important"

    apply_time_warp: bool = True
    """Stretch parts of the utterance."""
    time_warp_window: Positive = 5
    """Largest shift of the warp, in frames."""
    time_warp_mode: str = "bicubic"
    """Interpolation of the warp."""
    apply_freq_mask: bool = True
    """Mask bands of frequencies."""
    freq_mask_width_range: Range = [0, 20]
    """Least and greatest width of a frequency mask, in mel filters."""
    num_freq_mask: Count = 2
    """Number of frequency masks per utterance."""
    lfr_rate: Count = 0
    """Frames stacked per feature frame, so that masks cover the same band in each; 0 for none."""
    apply_time_mask: bool = True
    """Mask stretches of time."""
    time_mask_width_range: Range | None = None
    """Least and greatest width of a time mask, in feature frames (60 ms at low frame rate)."""
    time_mask_width_ratio_range: list[float] | None = None
    """Least and greatest width of a time mask, as a share of the utterance."""
    num_time_mask: Count = 2
    """Number of time masks per utterance."""

    @field_validator("freq_mask_width_range", "time_mask_width_range")
    @classmethod
    def _low_before_high(cls, widths: list[int] | None) -> list[int] | None:
        if widths is not None and not 0 <= widths[0] <= widths[1]:
            raise ValueError("[low, high] with 0 <= low <= high")
        return widths


class TrainConf(Block):
    """The training loop."""

    role = "optimization"
    severity = "important"

    use_lora: Annotated[bool, MINOR] = False
    """Said for the loop as well; follows llm_conf.use_lora."""
    accum_grad: Positive = 1
    """Batches whose gradients are summed before one update."""
    grad_clip: Annotated[float, Field(gt=0)] = 10.0
    """Largest norm of the gradients; beyond it they are scaled down."""
    grad_clip_type: Annotated[float, Field(gt=0)] = 2.0
    """Order of that norm."""
    max_epoch: Positive = 100
    """Passes over the training data."""
    early_stopping_patience: Count = 0
    """Validations without gain after which stock training stops; 0 for never."""
    use_bf16: bool = False
    """Compute in bfloat16."""
    use_fp16: bool = False
    """Compute in float16."""
    use_ddp: Annotated[bool, CRITICAL] = False
    """Distribute over GPUs by PyTorch's DistributedDataParallel."""
    use_fsdp: Annotated[bool, CRITICAL] = False
    """Distribute over GPUs by PyTorch's FullyShardedDataParallel."""
    use_deepspeed: Annotated[bool, CRITICAL] = False
    """Distribute over GPUs by DeepSpeed."""
    deepspeed_config: Annotated[str | None, MINOR] = ""
    """File of DeepSpeed's own settings."""
    find_unused_parameters: Annotated[bool, MINOR] = False
    """Let DistributedDataParallel look for parameters without gradient."""
    log_interval: Annotated[Positive, Is("runtime", "minor")] = 50
    """Updates between two log lines."""
    reset_gpu_cache: Annotated[bool, Is("runtime", "minor")] = False
    """Give cached GPU memory back after each batch."""
    resume: Annotated[bool, Is("checkpointing", "minor")] = True
    """Go on from the last checkpoint of the output directory."""
    validate_interval: Annotated[Positive | None, Is("checkpointing")] = 5000
    """Updates between two validations within an epoch; null validates at its end alone."""
    save_checkpoint_interval: Annotated[Positive, Is("checkpointing")] = 5000
    """Updates between two points to resume from within an epoch."""
    keep_nbest_models: Annotated[Positive, Is("checkpointing")] = 500
    """Number of best checkpoints kept."""
    avg_nbest_model: Annotated[Count, Is("checkpointing")] = 10
    """Number of best checkpoints averaged at the end."""
    avg_keep_nbest_models_type: Annotated[Literal["acc", "loss"], Is("checkpointing")] = "acc"
    """What makes a checkpoint the best for stock training."""
    effective_save_name_excludes: Annotated[list[str] | None, Is("checkpointing")] = None
    """Beginnings of parameter names that stock checkpoints leave out."""
    save_init_model: Annotated[bool, Is("checkpointing", "minor")] = False
    """Save the model before the first update as well."""


class OptimConf(Block):
    """Arguments of the optimizer."""

    role = "optimization"
    severity = "important"

    lr: Annotated[float, Field(gt=0), CRITICAL] = 1e-3
    """Learning rate at its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Share of each weight, times the learning rate, taken off at each update."""
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Decay of the running means of the gradient and of its square, per update."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator of the update."""
    amsgrad: Annotated[bool, MINOR] = False
    """Divide by the greatest running mean so far instead of the current one."""


class SchedulerConf(Block):
    """Arguments of the learning-rate scheduler."""

    role = "optimization"
    severity = "important"

    warmup_steps: Positive = 25000
    """Updates until the learning rate peaks; after that it falls with their square root."""


class CtcTokenizerConf(Block):
    """Arguments of the CTC tokenizer."""

    role = "tokenizer"

    vocab_path: str | None = None
    """File of the vocabulary (tiktoken's format); null takes the one in the model directory."""
    is_multilingual: bool = True
    """Use the multilingual vocabulary."""
    num_languages: Positive = 8749
    """Number of language symbols in the vocabulary."""


class PromptConf(Block):
    """Context that training puts into the LLM's prompt."""

    role = "data"

    max_neg_hotwords_num: Count = 900
    """Most hot words that are not in the utterance."""
    min_neg_hotwords_num: Count = 0
    """Fewest hot words that are not in the utterance."""
    use_hist: bool = True
    """Give the text before the utterance."""
    use_one_pass_result: bool = True
    """Give the text of a first pass."""
    use_hotwords: bool = True
    """Give hot words."""
    use_asr_hotwords: bool = True
    """Give hot words found by a first pass."""
    chinese_hotwords_list: str | None = ""
    """File of Chinese hot words, one per line."""
    english_hotwords_list: str | None = ""
    """File of English hot words, one per line."""


class DatasetConf(Block):
    """From manifests to batches."""

    role = "data"

    index_ds: str | None = None
    """Class that reads manifests."""
    dataloader: str = "DataloaderMapStyle"
    """Class that loads batches."""
    batch_sampler: str = "BatchSampler"
    """Class that forms batches."""
    batch_type: Annotated[Literal["token", "example"], IMPORTANT] = "token"
    """What batch_size counts: 10 ms frames with text tokens (token) or utterances (example)."""
    batch_size: Annotated[Positive, IMPORTANT] = 6000
    """Size of a batch with its padding, in what batch_type counts."""
    max_token_length: Annotated[Positive, IMPORTANT] = 1500
    """Longest utterance, in 10 ms frames plus text tokens; longer ones are left out."""
    shuffle: bool = True
    """Draw utterances in a new order each epoch."""
    drop_last: bool = False
    """Leave out a last batch that is not full."""
    sort_size: Positive = 1024
    """Utterances drawn at once and sorted by length before they are batched."""
    rank_split: bool = False
    """Batch each GPU's share by itself."""
    batch_size_scale_ratio_max: Annotated[float, Field(gt=0)] = 1.5
    """Most that a batch may grow beyond batch_size."""
    batch_size_scale_threshold: Positive = 3000
    """Batch size from which that growth applies."""
    num_workers: Annotated[Count, Is("runtime")] = 4
    """Processes that load data; 0 loads in the training process."""
    audio_adaptor_downsample_rate: Positive = 2
    """Said for the dataset as well; follows audio_adaptor_conf.downsample_rate."""
    audio_encoder_downsample_rate: Positive = 2
    """Feature frames per encoder frame."""
    data_split_num: Positive = 1
    """Parts that a list of manifests is read in."""
    batch_size_sample_max: Annotated[Positive, IMPORTANT] = 200
    """Most utterances in a batch."""
    batch_size_token_max: Annotated[Positive, IMPORTANT] = 2500
    """Most tokens in a batch; stock training drops the last utterances beyond it."""
    retry: Positive = 100
    """Other utterances that stock training tries in place of one it cannot read."""
    min_source_length: Count = 10
    """Shortest speech, in 10 ms frames."""
    max_source_length: Positive = 8000
    """Longest speech, in 10 ms frames."""
    min_target_length: Count = 0
    """Shortest text, in tokens."""
    max_target_length: Positive = 2048
    """Longest text, in tokens."""
    length_scale_source: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the length of speech when batches are formed."""
    multiturn_num_max: Positive = 5
    """Most turns of a conversation taken from one line."""
    do_think: bool = True
    """Let the prompt ask the LLM to think first."""
    sys_prompt: bool = True
    """Put the system's turn into the prompt."""
    use_dynamic_output_ratio: Share = 0.0
    """Share of utterances trained with part of their text masked."""
    min_mask_token_len: Count = 1
    """Fewest text tokens masked in those."""
    min_non_mask_token_len: Count = 6
    """Fewest text tokens kept in those."""
    prompt_classes: str | None = None
    """Class that writes the context into the prompt."""
    prompt_conf: PromptConf = PromptConf()
    ctc_tokenizer: Annotated[str | None, Is("tokenizer")] = None
    """Class of the CTC tokenizer."""
    ctc_target_normalize: bool = False
    """Normalise the text that CTC learns."""
    ctc_tokenizer_conf: CtcTokenizerConf = CtcTokenizerConf()


class TokenizerConf(Block):
    """Arguments of the LLM's tokenizer."""

    role = "tokenizer"

    init_param_path: str | None = None
    """Folder of the tokenizer, relative to the model directory."""
    unk_symbol: str | None = None
    """Symbol for what the vocabulary lacks."""


class FinetuneConf(Block):
    """Keys of our own trainer; stock FunASR never reads this block."""

    role = "ours"

    stage: Literal["8k", "s1", "s2", "s3", "custom"] | None = None
    """Short name of the stage in tables and tags; null takes it from the file's name."""
    seed: Count = 0
    """Seed of weights that are new, of the order of utterances, of masks and of dropout."""
    num_threads: Positive = 1
    """CPU threads; results repeat exactly with one."""
    engine: Annotated[Literal["here", "stock"], IMPORTANT] = "here"
    """Who trains: our loop (here), or FunASR's unmodified trainer with our evaluation (stock)."""
    lora_dtype: Annotated[Literal["fp32", "llm"], IMPORTANT] = "fp32"
    """Number format of the adapters in training: fp32, or that of the LLM as stock (llm)."""
    decay_norm_and_bias: Annotated[bool, IMPORTANT] = False
    """Apply weight decay to norms and biases too, as stock training does."""
    frozen_dropout: Annotated[bool, IMPORTANT] = False
    """Leave the dropout of frozen parts on in training, as stock does."""
    zero_padding: Annotated[bool, IMPORTANT] = True
    """Zero the encoder's output beyond an utterance's end, so that batching changes nothing."""
    fused: bool = True
    """Train in fewer operations that give the same but for rounding; false takes stock's own."""
    pad_frames_to: Positive = 1
    """Pad the encoder's input to a multiple of so many frames, so that shapes come again."""
    compile_layers: bool = False
    """Compile the layers of encoder and LLM for training, by `torch.compile`."""
    max_skipped_steps: Count = 0
    """Updates left out for a loss or gradient that is not finite before the run fails."""
    max_new_tokens: Positive = 200
    """Longest text that decoding may write, in tokens."""
    eval_batch_size: Positive = 64
    """Utterances decoded at once; of those above 7.7 s fewer, as many seconds in all."""
    eval_max_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest recording that evaluation takes, in seconds; a longer one is refused."""
    valid_subset: Positive | None = None
    """Utterances of the validation set that choose the checkpoint; null takes all of them."""
    feature_cache_mb: Count = 20480
    """Disk for features that all processes share, in MB; 0 for none."""
    feature_cache_dir: str | None = None
    """Directory of those features; null takes the user's cache directory."""
    cache_frozen_outputs: bool = True
    """Keep outputs of a frozen encoder and adaptor too, where no SpecAug comes before them."""
    channel: Annotated[str | None, IMPORTANT] = None
    """Telephone channel for training utterances: a name in conf/channel, or a YAML file."""
    channel_share: Annotated[Share, IMPORTANT] = 1.0
    """Share of the training utterances that goes over the channel, drawn anew in each epoch."""
    wideband_data_set_list: str | None = None
    """Manifest of clean 16 kHz speech; shows what fine-tuning forgets."""
    silence_data_set_list: str | None = None
    """Manifest of recordings without speech, their targets empty; shows what is made up."""
    test_data_set_list: str | None = None
    """Manifest scored once, with the checkpoint that would be exported."""
    keywords: str | None = None
    """File with a keyword a line, whose misses and false alarms are counted."""
    allow_unknown: list[str] = []
    """Dotted keys outside this schema that are let through; --allow-unknown writes them here."""


class FineTuneConfig(Block):
    """The whole configuration of one fine-tune."""

    role = "runtime"

    model: Annotated[Literal["FunASRNano"], Is("architecture", "important")] = "FunASRNano"
    """Class of the model; or a hub's name or a directory, which stands for its config.yaml."""
    hub: Literal["ms", "hf"] = "ms"
    """Hub that a model's name belongs to: ModelScope or Hugging Face."""
    model_conf: ModelConf = ModelConf()
    input_size: Annotated[Positive, Is("architecture", "important")] = 80
    """Width of the features, in channels; the frontend's output sets it."""
    audio_encoder: Annotated[str | None, Is("architecture", "important")] = None
    """Class of the speech encoder."""
    audio_encoder_conf: AudioEncoderConf = AudioEncoderConf()
    llm: Annotated[str | None, Is("architecture", "important")] = None
    """Name of the LLM."""
    llm_conf: LlmConf = LlmConf()
    audio_adaptor: Annotated[str | None, Is("architecture", "important")] = None
    """Class of the adaptor."""
    audio_adaptor_conf: AudioAdaptorConf = AudioAdaptorConf()
    ctc_decoder: Annotated[str | None, Is("architecture", "important")] = None
    """Class of the CTC decoder; null has no CTC."""
    ctc_decoder_conf: CtcDecoderConf = CtcDecoderConf()
    ctc_conf: CtcConf = CtcConf()
    ctc_vocab_size: Annotated[Positive, Is("architecture", "important")] = 60515
    """Outputs of the CTC layer, the blank (the last one) included."""
    ctc_weight: Annotated[float, Field(ge=0), TRAINING] = 0.3
    """Weight of the CTC loss beside the LLM's loss of weight 1."""
    detach_ctc_decoder: Annotated[bool, TRAINING] = True
    """Keep the CTC loss from changing the encoder; false lets it train both."""
    ctc_tokenizer: Annotated[str | None, Is("tokenizer")] = None
    """Class of the CTC tokenizer; comes before the one in dataset_conf."""
    ctc_tokenizer_conf: CtcTokenizerConf = CtcTokenizerConf()
    frontend: Annotated[str | None, Is("frontend", "important")] = None
    """Class of the frontend."""
    frontend_conf: FrontendConf = FrontendConf()
    specaug: Annotated[Literal["SpecAugLFR"] | None, Is("augmentation", "important")] = None
    """Class of the feature masking in training; null for none."""
    specaug_conf: SpecaugConf = SpecaugConf()
    train_conf: TrainConf = TrainConf()
    optim: Annotated[Literal["adam", "adamw"], TRAINING] = "adam"
    """Name of the optimizer."""
    optim_conf: OptimConf = OptimConf()
    scheduler: Annotated[Literal["warmuplr"], TRAINING] = "warmuplr"
    """Name of the learning-rate scheduler."""
    scheduler_conf: SchedulerConf = SchedulerConf()
    dataset: Annotated[str, Is("data")] = "AudioDataset"
    """Class of the dataset."""
    dataset_conf: DatasetConf = DatasetConf()
    tokenizer: Annotated[str | None, Is("tokenizer")] = None
    """Class of the LLM's tokenizer."""
    tokenizer_conf: TokenizerConf = TokenizerConf()
    finetune_conf: FinetuneConf = FinetuneConf()
    enable_tf32: bool = True
    """Let GPUs multiply in TF32, faster and less exact than float32."""
    cudnn_enabled: bool = True
    """Let GPUs convolve by cuDNN."""
    cudnn_benchmark: bool = False
    """Let cuDNN try its algorithms for each new shape and take the fastest."""
    cudnn_deterministic: bool = True
    """Let cuDNN use algorithms only that give the same result each time."""
    debug: bool = False
    """Let stock training wait for a debugger."""
    device: str | None = None
    """Device to train on, such as `cpu` or `cuda:0`; null takes a GPU if there is one."""
    max_length: Positive = 512
    """Longest text that stock inference may write, in tokens."""
    llm_kwargs: dict[str, Any] = {}
    """Further arguments of the LLM's generation in stock inference."""
    train_data_set_list: Annotated[str | None, Is("data")] = None
    """Training data: a manifest, or a text file with one manifest per line."""
    valid_data_set_list: Annotated[str | None, Is("data")] = None
    """Validation data, in the same forms."""
    init_param: Annotated[str | None, Is("checkpointing")] = None
    """File of the weights to start from."""
    output_dir: Annotated[str | None, Is("checkpointing")] = None
    """Directory that everything is written to."""
