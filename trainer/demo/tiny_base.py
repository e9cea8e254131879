"""The tiny model's directory, all but its weights: configuration and tokenizers.

It has the released model's form, so that stock `funasr.AutoModel(model=DIR)` loads it:
`config.yaml`, `configuration.json` (whose `file_path_metas` makes paths absolute), the LLM's
folder, `multilingual.tiktoken` and, once trained, `model.pt`.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainer.demo.sentences import INVENTORY

LLM_FOLDER = "Qwen3-tiny"
CTC_VOCABULARY = "multilingual.tiktoken"
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# One token each keeps the prompt short, and most of a tiny LLM's time is its prompt. Words with a
# space in front come first: a merge of a lower rank is made first, and "as" of "assistant" would
# otherwise break " assistant".
PROMPT_WORDS = (" are", " a", " helpful", " assistant", "You", "system", "user", "assistant")
PROMPT_CHARACTERS = "语音转写："
# Qwen2's pre-tokenizer: words with the space before them, single digits, punctuation, line ends.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte, which byte-level BPE files are written in."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in kept}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [symbols[byte] for byte in range(256)]


def _prefixes(words: Iterable[bytes]) -> list[bytes]:
    """All prefixes of two or more bytes, shorter before longer within a word, each once."""
    found = dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1))
    return list(found)


def llm_pieces() -> list[bytes]:
    """The LLM tokenizer's merged pieces, in the order of their ranks."""
    characters = (character.encode() for character in INVENTORY + PROMPT_CHARACTERS)
    return _prefixes([*(word.encode() for word in PROMPT_WORDS), *characters])


def ctc_pieces() -> list[bytes]:
    """The CTC tokenizer's pieces by rank: bytes, then the characters and their prefixes."""
    single = [bytes([byte]) for byte in range(256)]
    return single + _prefixes(character.encode() for character in INVENTORY)


def byte_level_bpe(
    pieces: Sequence[bytes], merges: Iterable[tuple[bytes, bytes]], normalizer: Any = None
) -> Any:
    """Make a `tokenizers.Tokenizer` that splits texts as Qwen2's does.

    Args:
        pieces: By rank, single bytes among them.
        merges: The two pieces that each longer piece is merged from, in the order of their ranks.
        normalizer: What texts pass first.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    symbols = _byte_symbols()

    def written(piece: bytes) -> str:
        return "".join(symbols[byte] for byte in piece)

    ranks = {written(piece): rank for rank, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(ranks, [(written(a), written(b)) for a, b in merges]))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_llm(folder: Path) -> None:
    """A Qwen3 configuration, and byte-level BPE with one token per character of the corpus."""
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    pieces = llm_pieces()
    single = [bytes([byte]) for byte in range(256)]
    merges = [(piece[:-1], piece[-1:]) for piece in pieces]
    tokenizer = byte_level_bpe([*single, *pieces], merges)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    end_of_text, start, end = SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=end_of_text,
        additional_special_tokens=[start, end],
        clean_up_tokenization_spaces=False,
        model_max_length=LLM_CONFIG["max_position_embeddings"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    special_ids = {token: fast.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen3Config(
        **LLM_CONFIG,
        vocab_size=len(fast),
        bos_token_id=special_ids[end_of_text],
        pad_token_id=special_ids[end_of_text],
        eos_token_id=special_ids[end],
    )
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    generation = {
        "bos_token_id": special_ids[end_of_text],
        "pad_token_id": special_ids[end_of_text],
        "eos_token_id": special_ids[end],
        "do_sample": False,
    }
    _write_json(folder / "generation_config.json", generation)


LLM_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "rope_theta": 300.0,  # sequences are short: a larger base would leave most frequencies idle
    "tie_word_embeddings": True,
    "use_cache": True,
}


def write_ctc_vocabulary(path: Path) -> int:
    """Write the tiktoken file; returns the size of CTC's output: the pieces, then the blank."""
    pieces = ctc_pieces()
    lines = (f"{base64.b64encode(piece).decode()} {rank}\n" for rank, piece in enumerate(pieces))
    path.write_text("".join(lines), encoding="ascii")
    return len(pieces) + 1


CONFIG = """\
# The released model's config.yaml in miniature: the same keys and classes, smaller sizes.
model: FunASRNano
model_conf:
    lsm_weight: 0.1
    length_normalized_loss: true
audio_encoder: SenseVoiceEncoderSmall
audio_encoder_conf:
    output_size: {encoder_dim}
    attention_heads: 4
    linear_units: 192
    num_blocks: {num_blocks}
    tp_blocks: 1
    dropout_rate: 0.05
    positional_dropout_rate: 0.05
    attention_dropout_rate: 0.05
    input_layer: pe
    pos_enc_class: SinusoidalPositionEncoder
    normalize_before: true
    kernel_size: 11
    sanm_shfit: 0
    selfattention_layer_type: sanm
    feat_permute: true
    freeze: true
    freeze_layer_num: -1
llm: {llm_folder}
llm_conf:
    hub: hf
    freeze: true
    llm_dtype: fp32
    init_param_path: {llm_folder}
    use_lora: false
    lora_conf:
        freeze_lora: true
        task_type: CAUSAL_LM
        r: 16
        lora_alpha: 32
        lora_dropout: 0.05
        bias: none
        target_modules: [q_proj, v_proj]
        init_param_path: ""
audio_adaptor: Transformer
audio_adaptor_conf:
    downsample_rate: 8
    use_low_frame_rate: true
    ffn_dim: {adaptor_ffn}
    llm_dim: {llm_dim}
    encoder_dim: {encoder_dim}
    n_layer: 1
    freeze: true
ctc_decoder: Transformer
detach_ctc_decoder: true
ctc_decoder_conf:
    downsample_rate: 1
    ffn_dim: 128
    llm_dim: {encoder_dim}
    encoder_dim: {encoder_dim}
    n_layer: 1
    freeze: false
ctc_weight: 1.0
ctc_vocab_size: {ctc_vocab_size}
ctc_conf:
    dropout_rate: 0.0
    ctc_type: builtin
    reduce: true
    ignore_nan_grad: true
frontend: WavFrontend
frontend_conf:
    fs: 16000
    window: hamming
    n_mels: 80
    frame_length: 25
    frame_shift: 10
    lfr_m: 7
    lfr_n: 6
    cmvn_file: null
    dither: 0.0
train_conf:
    use_lora: ${{llm_conf.use_lora}}
    accum_grad: 1
    grad_clip: 5
    max_epoch: 2
    keep_nbest_models: 200
    log_interval: 100
    effective_save_name_excludes: [llm.]
    resume: true
    validate_interval: 2000
    save_checkpoint_interval: 2000
    avg_nbest_model: 100
    use_bf16: false
    use_deepspeed: true
    deepspeed_config: null
    save_init_model: false
optim: adamw
optim_conf:
    lr: 5.0e-06
    weight_decay: 0.0
scheduler: warmuplr
scheduler_conf:
    warmup_steps: 2500
dataset: FunASR
dataset_conf:
    index_ds: FunASR
    batch_sampler: BatchSampler
    batch_type: token
    batch_size: 6000
    max_token_length: 3500
    shuffle: true
    sort_size: 1024
    batch_size_scale_ratio_max: 2
    num_workers: 4
    audio_adaptor_downsample_rate: ${{audio_adaptor_conf.downsample_rate}}
    audio_encoder_downsample_rate: 6
    data_split_num: 256
    batch_size_sample_max: 10
    retry: 2000
    batch_size_token_max: 6000
    max_source_length: 12000
    max_target_length: 2048
    prompt_classes: MultiContextPrompt
    prompt_conf:
        max_neg_hotwords_num: 0
        min_neg_hotwords_num: 0
        use_hist: false
        use_one_pass_result: true
        use_hotwords: true
        use_asr_hotwords: true
        chinese_hotwords_list: null
        english_hotwords_list: null
    ctc_tokenizer: SenseVoiceTokenizer
    ctc_target_normalize: true
    ctc_tokenizer_conf:
        vocab_path: null
        is_multilingual: true
        num_languages: 8749
    min_source_length: 10
    batch_size_scale_threshold: 3000
    use_dynamic_output_ratio: 0.0
tokenizer: HuggingfaceTokenizer
tokenizer_conf:
    init_param_path: ${{llm_conf.init_param_path}}
enable_tf32: true
debug: false
train_data_set_list: null
valid_data_set_list: null
init_param: null
output_dir: null
"""


def configuration(llm_folder: str, *, ctc_vocabulary: bool = True) -> dict[str, Any]:
    """The content of `configuration.json`; the CTC vocabulary may go unlisted, as the released."""
    metas: dict[str, Any] = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "llm_conf": {"init_param_path": llm_folder},
        "tokenizer_conf": {"init_param_path": llm_folder},
    }
    if ctc_vocabulary:
        metas["dataset_conf"] = {"ctc_tokenizer_conf": {"vocab_path": CTC_VOCABULARY}}
    return {
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "pipeline": {"type": "funasr-pipeline"},
        "model_name_in_hub": {"ms": "", "hf": ""},
        "file_path_metas": metas,
    }


def write_directory(directory: Path) -> None:
    """Everything but the weights and the card."""
    directory.mkdir(parents=True, exist_ok=True)
    write_llm(directory / LLM_FOLDER)
    text = CONFIG.format(
        encoder_dim=64,
        num_blocks=2,
        adaptor_ffn=192,
        llm_folder=LLM_FOLDER,
        llm_dim=LLM_CONFIG["hidden_size"],
        ctc_vocab_size=write_ctc_vocabulary(directory / CTC_VOCABULARY),
    )
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    _write_json(directory / "configuration.json", configuration(LLM_FOLDER))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
