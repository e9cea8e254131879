"""The training losses: cross entropy of the LLM's text and CTC.

FunASR computes the first only; ``ctc_weight`` and ``detach_ctc_decoder`` are stored there and
never read. Here

    loss = CE + ctc_weight * CTC

where CE is the mean over the batch's target tokens and CTC the mean over utterances of the
negative log likelihood per label (``torch.nn.functional.ctc_loss`` with ``reduction="mean"``), so
both are of the same order. The encoder's output beyond an utterance's end is set to zero, so no
utterance sees its neighbours' padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from conf.load import Config
from trainer.data.batch import Batch
from trainer.funasr_parts import registered
from trainer.model.fused import is_fused

HEAD_ROWS = 256
"""Rows that go through a head onto a vocabulary at once where nothing learns: all of them together,
64 recordings of 15 s, would take 7.7 GB behind the released CTC head."""


@dataclass(frozen=True)
class Losses:
    """Scalars of one batch; ``ctc`` is None where it could not teach anything."""

    ce: torch.Tensor
    ctc: torch.Tensor | None
    ctc_weight: float
    num_tokens: int

    @property
    def total(self) -> torch.Tensor:
        return self.share(1.0, 1.0)

    def share(self, of_tokens: float, of_utterances: float) -> torch.Tensor:
        """What the batch adds to the loss of an update that is made from several.

        Args:
            of_tokens: The batch's part of all target tokens, between 0 and 1.
            of_utterances: Its part of all utterances.
        """
        if self.ctc is None:
            return self.ce * of_tokens
        return self.ce * of_tokens + self.ctc_weight * of_utterances * self.ctc


def target_logits(
    model: Any, batch: Batch, embeddings_BLD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the target positions alone: projecting to the vocabulary is costly."""
    hidden_ND, labels_N = target_states(model, batch, embeddings_BLD)
    return model.llm.lm_head(hidden_ND), labels_N


def target_states(
    model: Any, batch: Batch, embeddings_BLD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the LLM's head makes logits of at the target positions, and their labels."""
    mask: Any = batch.attention_mask_BL
    if is_fused(model) and _causal_alone(model.llm):
        # Padding is on the right, where no target looks: the causal mask hides it. Given as what
        # transformers would have made of it, since to find that out it asks the device.
        mask = {"full_attention": None}
    hidden_BLD = model.llm.model(inputs_embeds=embeddings_BLD, attention_mask=mask)[0]
    return hidden_BLD.flatten(0, 1).index_select(0, batch.predicts_at_N), batch.targets_N


def _causal_alone(llm: Any) -> bool:
    """Whether the LLM's attention is causal in each layer without being given a mask."""
    types = getattr(llm.config, "layer_types", None) or ()
    return set(types) == {"full_attention"} and llm.config._attn_implementation == "sdpa"


class Objective:
    """Computes :class:`Losses` of a FunASRNano for the keys of a configuration.

    Args:
        model: FunASRNano, ``requires_grad`` as it will be trained.
        config: Its effective configuration.
    """

    def __init__(self, model: Any, config: Config) -> None:
        self._model = model
        self._ctc_weight: float = config["ctc_weight"]
        self._detach_ctc: bool = config["detach_ctc_decoder"]
        self._zero_infinity: bool = config["ctc_conf.ignore_nan_grad"]
        self._zero_padding: bool = config["finetune_conf.zero_padding"]
        self._pad_frames_to: int = config["finetune_conf.pad_frames_to"]
        specaug = config.get("specaug")
        self._specaug = (
            registered("specaug_classes", specaug)(**config["specaug_conf"]) if specaug else None
        )

    @property
    def ctc_teaches(self) -> bool:
        """Whether the CTC loss reaches a trainable weight."""

        def learns(module: torch.nn.Module) -> bool:
            return any(parameter.requires_grad for parameter in module.parameters())

        model = self._model
        decoder = learns(model.ctc_decoder) or learns(model.ctc)
        return self._ctc_weight > 0 and (
            decoder or (not self._detach_ctc and learns(model.audio_encoder))
        )

    def prepared(self, batch: Batch) -> Batch:
        """A batch for training, still on the host: masked by SpecAug and padded.

        On the host, because SpecAug asks for the largest of the widths that it has drawn.
        """
        if batch.level != "features":
            return batch
        features_BTF = batch.features_BTF
        if self._specaug is not None:
            features_BTF, _ = self._specaug(features_BTF.clone(), batch.num_frames_B)
        if added := -features_BTF.shape[1] % self._pad_frames_to:
            features_BTF = F.pad(features_BTF, (0, 0, 0, added))
        return replace(batch, features_BTF=features_BTF)

    def __call__(self, batch: Batch, *, training: bool) -> Losses:
        """Losses of a batch that lies on the model's device.

        Args:
            batch: Collated with its targets.
            training: Leave out a CTC loss that teaches nothing. Without it the heads onto the
                vocabularies are computed in parts, which takes less memory where no gradient needs
                them all. Dropout follows the modules' own modes.
        """
        if training:
            [losses] = self.of_each(batch, [batch])
            return losses
        encoded_BTD, num_frames_B = self._encoded(batch)
        ce = self._cross_entropy_in_parts(batch, encoded_BTD, num_frames_B)
        ctc = self._ctc_in_parts(batch, encoded_BTD, num_frames_B)
        return Losses(ce, ctc, self._ctc_weight, batch.num_target_tokens)

    def of_each(self, batch: Batch, parts: Sequence[Batch]) -> list[Losses]:
        """Losses for training of each of the batches that a batch was joined from.

        Args:
            batch: On the model's device.
            parts: The batches, wherever they lie, in their order.
        """
        encoded_BTD, num_frames_B = self._encoded(batch)
        ce_N = self._cross_entropies(batch, encoded_BTD, num_frames_B)
        ces = torch.split(ce_N, [part.num_target_tokens for part in parts])
        ctcs: Sequence[torch.Tensor | None] = [None] * len(parts)
        if self.ctc_teaches:
            ctc_B = self._ctc_losses(batch, encoded_BTD, num_frames_B)
            of_parts = torch.split(ctc_B, [len(part.keys) for part in parts])
            ctcs = [each.mean() for each in of_parts]
        return [
            Losses(ce_N.mean(), ctc, self._ctc_weight, ce_N.numel())
            for ce_N, ctc in zip(ces, ctcs, strict=True)
        ]

    def _encoded(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's output; a batch that begins behind the encoder goes through as it is."""
        if batch.level != "features":
            return batch.features_BTF, batch.num_frames_B
        return encode(
            self._model, batch.features_BTF, batch.num_frames_B, zero_padding=self._zero_padding
        )

    def _cross_entropies(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """Of each target token."""
        model = self._model
        embeddings_BLD = embed(model, batch, encoded_BTD, num_frames_B)
        with llm_autocast(model, embeddings_BLD.device):
            logits_NV, labels_N = target_logits(model, batch, embeddings_BLD)
            return F.cross_entropy(logits_NV.float(), labels_N, reduction="none")

    def _cross_entropy_in_parts(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """The mean over the target tokens, by as many rows at once as `HEAD_ROWS`."""
        model = self._model
        embeddings_BLD = embed(model, batch, encoded_BTD, num_frames_B)
        with llm_autocast(model, embeddings_BLD.device):
            hidden_ND, labels_N = target_states(model, batch, embeddings_BLD)
            sums = [
                F.cross_entropy(model.llm.lm_head(rows_ND).float(), rows_N, reduction="sum")
                for rows_ND, rows_N in zip(
                    torch.split(hidden_ND, HEAD_ROWS), torch.split(labels_N, HEAD_ROWS), strict=True
                )
            ]
        return torch.stack(sums).sum() / labels_N.numel()

    def _ctc_losses(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """Of each utterance, per label, as `reduction="mean"` takes the mean of them."""
        log_probs_BTV = ctc_log_probs(
            self._model, encoded_BTD.detach() if self._detach_ctc else encoded_BTD, num_frames_B
        )
        ctc_B = F.ctc_loss(
            log_probs_BTV.transpose(0, 1).float(),
            batch.ctc_labels_BU,
            batch.host_frames_B,
            batch.host_ctc_labels_B,
            blank=self._model.blank_id,
            reduction="none",
            zero_infinity=self._zero_infinity,
        )
        return ctc_B / batch.num_ctc_labels_B.clamp(min=1)

    def _ctc_in_parts(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """The same from the columns of blank and labels alone: CTC reads no others."""
        model, labels_BU = self._model, batch.ctc_labels_BU
        decoded_BTD, _ = model.ctc_decoder(encoded_BTD, num_frames_B)
        columns_BC = F.pad(labels_BU, (1, 0), value=model.blank_id)
        columns_NC = columns_BC.repeat_interleave(decoded_BTD.shape[1], dim=0)
        log_probs_NC = torch.cat(
            [
                model.ctc.log_softmax(rows_1ND)[0].gather(1, rows_NC)
                for rows_1ND, rows_NC in zip(
                    torch.split(decoded_BTD.flatten(0, 1)[None], HEAD_ROWS, dim=1),
                    torch.split(columns_NC, HEAD_ROWS),
                    strict=True,
                )
            ]
        )
        return F.ctc_loss(
            log_probs_NC.view(*decoded_BTD.shape[:2], -1).transpose(0, 1).float(),
            # A label that comes twice has one column, since CTC puts a blank between equals.
            (labels_BU[:, :, None] == columns_BC[:, None]).int().argmax(dim=-1),
            batch.host_frames_B,
            batch.host_ctc_labels_B,
            blank=0,
            reduction="mean",
            zero_infinity=self._zero_infinity,
        )


def encode(
    model: Any, features_BTF: torch.Tensor, num_frames_B: torch.Tensor, *, zero_padding: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder output and its lengths; FunASR's own encoder, not fused, writes into its input."""
    encoded_BTD, lengths_B = model.encode(features_BTF, num_frames_B)
    if zero_padding:
        frame_T = torch.arange(encoded_BTD.shape[1], device=encoded_BTD.device)
        encoded_BTD = encoded_BTD * (frame_T < lengths_B[:, None])[:, :, None]
    return encoded_BTD, lengths_B


def adapt(model: Any, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor) -> torch.Tensor:
    """The adaptor's output, of which the LLM takes as many rows as an utterance has tokens."""
    adapted_BTD: torch.Tensor = model.audio_adaptor(encoded_BTD, num_frames_B)[0]
    return adapted_BTD


def embed(
    model: Any, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
) -> torch.Tensor:
    """The LLM's input: token embeddings with the adaptor's output in the audio positions."""
    if batch.level == "adapted":
        adapted_BTD = encoded_BTD
    else:
        adapted_BTD = adapt(model, encoded_BTD, num_frames_B)
    longest = int(batch.num_audio_tokens_B.numpy().max())
    audio_ND = adapted_BTD[:, :longest].flatten(0, 1).index_select(0, batch.audio_from_N)
    embeddings_BLD: torch.Tensor = model.llm.get_input_embeddings()(batch.input_ids_BL)
    filled_MD = embeddings_BLD.flatten(0, 1).index_copy(
        0, batch.audio_at_N, audio_ND.to(embeddings_BLD.dtype)
    )
    return filled_MD.view_as(embeddings_BLD)


def ctc_log_probs(
    model: Any, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
) -> torch.Tensor:
    decoded_BTD, _ = model.ctc_decoder(encoded_BTD, num_frames_B)
    log_probs_BTV: torch.Tensor = model.ctc.log_softmax(decoded_BTD)
    return log_probs_BTV


def ctc_best(model: Any, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor) -> torch.Tensor:
    """The most likely CTC label of each frame."""
    decoded_BTD, _ = model.ctc_decoder(encoded_BTD, num_frames_B)
    rows = torch.split(decoded_BTD.flatten(0, 1)[None], HEAD_ROWS, dim=1)
    best_1N = torch.cat([model.ctc.argmax(rows_1ND) for rows_1ND in rows], dim=1)
    return best_1N.view(decoded_BTD.shape[:2])


def llm_autocast(model: Any, device: torch.device) -> torch.autocast:
    """Autocast to ``llm_conf.llm_dtype``, as FunASR's ``forward`` does; nothing for fp32."""
    dtype = next(model.llm.parameters()).dtype
    return torch.autocast(device.type, enabled=dtype != torch.float32, dtype=dtype)
