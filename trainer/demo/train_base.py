"""Train the tiny base from nothing: `python -m trainer demo --rebuild DIR`, about ten minutes.

1. Speech of the base's own voices and sentences: most of it clean at 16 kHz, some with room noise,
   some through 8 kHz, or the base would be helpless at the first trace of either.
2. Encoder and CTC on it.
3. Adaptor and LLM on the encoder's output, which no longer changes and is computed once. Half of
   the examples are spliced from pieces of several utterances, cut where CTC says one character
   ends and the next begins: text that nothing but listening predicts. And for the first epochs the
   adaptor's tokens are asked through the LLM's own output layer which characters they hold; with
   that hint the LLM finds out how to read them in a third of the steps.
4. `scores.json`, the CER on the demonstration's corpus, and the model card, made from it.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from conf.document.numbers import rate
from conf.files import replacing_directory, write_json
from conf.load import load_config, stage_config_path
from trainer.data.batch import Example, collate, make_example
from trainer.data.manifest import read_data_list
from trainer.demo.corpus import BASE_VOICES, Part, ensure, make
from trainer.demo.tiny_base import write_directory
from trainer.evaluation.evaluate import evaluate
from trainer.model.build import Nano, build
from trainer.model.losses import ctc_log_probs, embed, encode, target_logits

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")

WARPS = (0.82, 1.22)
FRAMES_PER_AUDIO_TOKEN = 8


@dataclass(frozen=True)
class Recipe:
    """How the base is trained."""

    num_clean: int = 4600
    num_noisy: int = 1200
    num_narrowband: int = 200
    encoder_epochs: int = 12
    encoder_lr: float = 2.5e-3
    encoder_batch_size: int = 16
    llm_epochs: int = 20
    llm_lr: float = 2.5e-3
    llm_batch_size: int = 32
    splice_share: float = 0.5  # of the LLM's examples
    hint_weight: float = 0.5
    hint_share: float = 0.7  # of the LLM's epochs, the first ones
    seed: int = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """The base's speech."""
        counts = {
            "wideband": self.num_clean,
            "noisy": self.num_noisy,
            "narrowband": self.num_narrowband,
        }
        return tuple(
            Part(f"base-{channel}", "base", BASE_VOICES, count, channel, seed, WARPS)
            for seed, (channel, count) in enumerate(counts.items())
        )


@dataclass(frozen=True)
class Encoded:
    """The encoder's output of one utterance, and which frames hold which character.

    Attributes:
        example: Its `features_TF` are the encoder's output.
        cuts: Character i of the target lies in frames `cuts[i]` to `cuts[i + 1]`; None where CTC
            did not hear the target.
    """

    example: Example
    cuts: tuple[int, ...] | None


def rebuild(directory: Path, recipe: Recipe | None = None) -> dict[str, dict[str, float]]:
    """Write a whole model directory, trained from nothing; returns its scores per manifest."""
    recipe = recipe or Recipe()
    started = time.monotonic()
    torch.set_num_threads(1)  # sums in one order, so that the same machine gives the same weights
    directory = Path(directory)
    with replacing_directory(directory) as new:
        speech, corpus = new.with_name("speech"), new.with_name("corpus")
        speech.mkdir()
        make(speech, recipe.parts)
        write_directory(new)
        torch.manual_seed(recipe.seed)
        nano = _untrained(new)
        examples = [
            make_example(utterance, nano.extractor, nano.codec)
            for part in recipe.parts
            for utterance in read_data_list(speech / f"{part.name}.jsonl")
        ]
        _log(started, f"{len(examples)} utterances")
        _train_encoder(nano, examples, recipe, started)
        encoded = _encode(nano, examples)
        del examples
        _log(started, f"CTC hears {_heard(encoded)} of {len(encoded)} utterances as written")
        _train_llm(nano, encoded, recipe, started)
        torch.save({"state_dict": nano.model.state_dict()}, new / "model.pt")
        scores = _score(nano, ensure(corpus))
        _log(started, str(scores))
        write_json(new / "scores.json", scores, indent=1)
        (new / "README.md").write_text(_card(nano, recipe, scores), encoding="utf-8")
    return scores


def _untrained(directory: Path) -> Nano:
    components = ("audio_encoder_conf", "audio_adaptor_conf", "ctc_decoder_conf", "llm_conf")
    overrides = [f"{component}.freeze=false" for component in components]
    overrides += ["finetune_conf.feature_cache_mb=0", "finetune_conf.fused=false"]
    config = load_config(stage_config_path("8k"), model=directory, overrides=overrides)
    return build(config, weights=False)


def _train_encoder(nano: Nano, examples: Sequence[Example], recipe: Recipe, started: float) -> None:
    model = nano.model

    def loss(batch_examples: Sequence[Example]) -> torch.Tensor:
        batch = collate(batch_examples).to(nano.device)
        encoded_BTD, num_frames_B = encode(model, batch.features_BTF.clone(), batch.num_frames_B)
        return F.ctc_loss(
            ctc_log_probs(model, encoded_BTD, num_frames_B).transpose(0, 1),
            batch.ctc_labels_BU,
            num_frames_B,
            batch.num_ctc_labels_B,
            blank=model.blank_id,
            zero_infinity=True,
        )

    modules = [model.audio_encoder, model.ctc_decoder, model.ctc]
    rng = random.Random(f"{recipe.seed}:encoder")
    schedule = _Schedule(modules, recipe.encoder_lr, recipe.encoder_epochs)
    for epoch in range(recipe.encoder_epochs):
        batches = _batches(examples, recipe.encoder_batch_size, rng, _num_frames)
        mean = schedule.run_epoch(epoch, batches, loss)
        _log(started, f"encoder epoch {epoch + 1}: CTC loss {mean:.3f}")


def _train_llm(nano: Nano, encoded: Sequence[Encoded], recipe: Recipe, started: float) -> None:
    model = nano.model
    rng = random.Random(f"{recipe.seed}:llm")
    schedule = _Schedule([model.audio_adaptor, model.llm], recipe.llm_lr, recipe.llm_epochs)
    pieces = [item for item in encoded if item.cuts is not None]
    for epoch in range(recipe.llm_epochs):
        hinted = epoch < recipe.hint_share * recipe.llm_epochs
        weight = recipe.hint_weight if hinted else 0.0
        share = recipe.splice_share if pieces else 0.0  # a barely trained CTC hears nothing whole
        mixed = [_splice(pieces, rng) if rng.random() < share else item for item in encoded]
        batches = _batches(
            mixed, recipe.llm_batch_size, rng, lambda item: _num_frames(item.example)
        )
        mean = schedule.run_epoch(epoch, batches, partial(_llm_loss, nano, hint_weight=weight))
        _log(started, f"LLM epoch {epoch + 1}: loss {mean:.3f}")


def _llm_loss(nano: Nano, items: Sequence[Encoded], hint_weight: float) -> torch.Tensor:
    model = nano.model
    batch = collate([item.example for item in items]).to(nano.device)
    embeddings_BLD = embed(model, batch, batch.features_BTF, batch.num_frames_B)
    loss: torch.Tensor = F.cross_entropy(*target_logits(model, batch, embeddings_BLD))
    if not hint_weight:
        return loss
    # The hint: each audio token's distribution over the vocabulary shall be that of its characters.
    logits_NV = model.llm.lm_head(model.llm.model.norm(embeddings_BLD[batch.audio_mask_BL]))
    wanted_NV = _characters_per_token(items, model.llm.config.vocab_size).to(nano.device)
    weight_N = wanted_NV.sum(dim=1).clamp(max=1.0)
    wanted_NV = wanted_NV / wanted_NV.sum(dim=1, keepdim=True).clamp(min=1.0)
    hint_N: torch.Tensor = -(wanted_NV * logits_NV.log_softmax(dim=-1)).sum(dim=1)
    return loss + hint_weight * hint_N.sum() / weight_N.sum().clamp(min=1.0)


def _characters_per_token(items: Sequence[Encoded], vocabulary: int) -> torch.Tensor:
    """How often each audio token of a batch holds each character; zeros where that is unknown."""
    rows, columns, first = [], [], 0
    for item in items:
        num_tokens = item.example.num_audio_tokens
        if item.cuts is not None:
            for index, character in enumerate(item.example.target[:-1]):
                middle = (item.cuts[index] + item.cuts[index + 1] - 1) // 2
                rows.append(first + min(middle // FRAMES_PER_AUDIO_TOKEN, num_tokens - 1))
                columns.append(character)
        first += num_tokens
    counts = torch.zeros(first, vocabulary)
    ones = torch.ones(len(rows))
    places = torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)
    return counts.index_put_(places, ones, accumulate=True)


def _splice(pieces: Sequence[Encoded], rng: random.Random) -> Encoded:
    """A new utterance of one to four pieces, each of up to six characters of some utterance."""
    frames, target, cuts = [], [], [0]
    for _ in range(rng.randint(1, 4)):
        piece = rng.choice(pieces)
        assert piece.cuts is not None
        length = len(piece.cuts) - 1
        count = min(length, rng.randint(1, 6))
        first = rng.randint(0, length - count)
        begin = piece.cuts[first]
        frames.append(piece.example.features_TF[begin : piece.cuts[first + count]])
        target += piece.example.target[first : first + count]
        cuts += [cuts[-1] + cut - begin for cut in piece.cuts[first + 1 : first + count + 1]]
    end = pieces[0].example.target[-1:]
    example = Example("spliced", torch.cat(frames), pieces[0].example.prompt, target + end, [])
    return Encoded(example, tuple(cuts))


@torch.no_grad()
def _encode(nano: Nano, examples: Sequence[Example]) -> list[Encoded]:
    model = nano.model.eval()
    encoded: list[Encoded] = []
    ordered = sorted(examples, key=_num_frames)
    for start in range(0, len(ordered), 32):
        group = ordered[start : start + 32]
        batch = collate(group).to(nano.device)
        encoded_BTD, lengths_B = encode(model, batch.features_BTF.clone(), batch.num_frames_B)
        best_BT = ctc_log_probs(model, encoded_BTD, lengths_B).argmax(dim=-1).cpu()
        for example, frames_TD, best_T, length in zip(
            group, encoded_BTD.cpu(), best_BT, lengths_B.tolist(), strict=True
        ):
            kept = Example(
                example.key,
                frames_TD[:length].clone(),
                example.prompt,
                example.target,
                example.ctc_labels,
            )
            cuts = _cuts(best_T[:length].tolist(), example.ctc_labels, model.blank_id)
            encoded.append(Encoded(kept, cuts))
    return encoded


def _cuts(best: Sequence[int], labels: Sequence[int], blank: int) -> tuple[int, ...] | None:
    """Frames between the characters: half-way between CTC's spikes."""
    heard: list[int] = []
    spikes: list[tuple[int, int]] = []
    previous = blank
    for frame, label in enumerate(best):
        if label != blank and label == previous:
            spikes[-1] = (spikes[-1][0], frame)
        elif label != blank:
            heard.append(label)
            spikes.append((frame, frame))
        previous = label
    if heard != list(labels):
        return None
    middles = [
        (left[1] + right[0] + 1) // 2 for left, right in zip(spikes, spikes[1:], strict=False)
    ]
    return (0, *middles, len(best))


def _heard(encoded: Sequence[Encoded]) -> int:
    return sum(item.cuts is not None for item in encoded)


def _num_frames(example: Example) -> int:
    return example.features_TF.shape[0]


def _batches(
    items: Sequence[_Item], size: int, rng: random.Random, length: Callable[[_Item], int]
) -> list[list[_Item]]:
    """Shuffled batches of items of similar length."""
    order = rng.sample(items, len(items))
    batches = []
    for start in range(0, len(order), 512):
        near = sorted(order[start : start + 512], key=length)
        batches += [near[first : first + size] for first in range(0, len(near), size)]
    rng.shuffle(batches)
    return batches


class _Schedule:
    """AdamW over some modules: a short linear warm-up, then a cosine to a fiftieth."""

    def __init__(self, modules: Sequence[torch.nn.Module], lr: float, num_epochs: int) -> None:
        self._modules = modules
        self._lr = lr
        self._num_epochs = num_epochs
        self._parameters = [p for module in modules for p in module.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=lr, weight_decay=0.01)

    def run_epoch(
        self,
        epoch: int,
        batches: Sequence[Sequence[Any]],
        loss: Callable[[Sequence[Any]], torch.Tensor],
    ) -> float:
        """The mean loss of one epoch's batches."""
        for module in self._modules:
            module.train()
        total = 0.0
        for index, batch in enumerate(batches):
            progress = (epoch + index / len(batches)) / self._num_epochs
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr * min(1.0, 0.05 + progress / 0.08) * cosine
            value = loss(batch)
            self._optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._parameters, 5.0)
            self._optimizer.step()
            total += value.item()
        return total / len(batches)


def _score(nano: Nano, corpus: Path) -> dict[str, dict[str, float]]:
    scores = {}
    for name in ("wideband", "valid", "test"):
        utterances = read_data_list(corpus / f"{name}.jsonl")
        result = evaluate(nano, utterances, max_new_tokens=60, batch_size=32)
        scores[name] = {
            "cer": round(result.cer.rate, 4),
            "cer_ctc": round(result.cer_ctc.rate, 4),
        }
    return scores


def _log(started: float, message: str) -> None:
    logger.info("%4.0f s  %s", time.monotonic() - started, message)


def _card(nano: Nano, recipe: Recipe, scores: dict[str, dict[str, float]]) -> str:
    components = ("audio_encoder", "ctc_decoder", "ctc", "audio_adaptor", "llm")
    counts = {
        name: sum(parameter.numel() for parameter in getattr(nano.model, name).parameters())
        for name in components
    }
    rows = "\n".join(
        f"| {name} | {rate(values['cer'], 1)} | {rate(values['cer_ctc'], 1)} |"
        for name, values in scores.items()
    )
    sizes = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"""# A tiny Fun-ASR-Nano for demonstrations and tests

It has exactly the classes and the file layout of Fun-ASR-Nano-2512 and {sum(counts.values()):,}
weights ({sizes}). It hears one speech synthesiser read {len(BASE_VOICES)} voices' worth of Mandarin
telephone phrases, clean at 16 kHz, and nothing else: it is no speech recogniser for real speech.

Made from nothing, without any other model's weights, by

    python -m trainer demo --rebuild DIR

on speech that eSpeak NG makes ({recipe.num_clean} clean utterances, {recipe.num_noisy} with room
noise, {recipe.num_narrowband} through 8 kHz; {recipe.encoder_epochs} epochs of encoder and CTC,
{recipe.llm_epochs} of adaptor and LLM; seed {recipe.seed}). None of its voices and none of its
sentences occur in the demonstration's corpus. A rebuild on another processor rounds differently;
its CER stays within 0.06 of these (tests/trainer/demo/test_train_base.py).

| manifest | CER of the LLM's text | CER of CTC |
|---|---|---|
{rows}

wideband is clean 16 kHz speech; valid and test are simulated telephone calls, which it does not
know: that gap is what fine-tuning is to close. Scores are of `python -m trainer demo`'s corpus
(`scores.json` holds them as fractions).

License: Apache-2.0, as the project. The tokenizers cover the corpus's characters with one token
each, and every other text by its bytes.
"""
