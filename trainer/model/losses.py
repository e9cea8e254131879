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

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from conf.load import Config
from trainer.data.batch import IGNORED_LABEL, Batch
from trainer.funasr_parts import registered

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
    hidden_BLD = model.llm.model(
        inputs_embeds=embeddings_BLD, attention_mask=batch.attention_mask_BL
    ).last_hidden_state
    labels_BL = batch.labels_BL[:, 1:]
    predicts_BL = labels_BL != IGNORED_LABEL
    return hidden_BLD[:, :-1][predicts_BL], labels_BL[predicts_BL]


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

    def __call__(self, batch: Batch, *, training: bool) -> Losses:
        """Losses of a batch that lies on the model's device.

        Args:
            batch: Collated with its targets.
            training: Apply SpecAug, and leave out a CTC loss that teaches nothing. Without it the
                heads onto the vocabularies are computed in parts, which takes less memory where
                no gradient needs them all. Dropout follows the modules' own modes.
        """
        encoded_BTD, num_frames_B = self._encoded(batch, training=training)
        ce, num_tokens = self._cross_entropy(batch, encoded_BTD, num_frames_B, training=training)
        if training and not self.ctc_teaches:
            return Losses(ce, None, self._ctc_weight, num_tokens)
        ctc = (self._ctc if training else self._ctc_in_parts)(batch, encoded_BTD, num_frames_B)
        return Losses(ce, ctc, self._ctc_weight, num_tokens)

    def _encoded(self, batch: Batch, *, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's output; a batch that begins behind the encoder goes through as it is."""
        if batch.level != "features":
            return batch.features_BTF, batch.num_frames_B
        features_BTF = batch.features_BTF.clone()  # the encoder and SpecAug write into it
        if training and self._specaug is not None:
            features_BTF, _ = self._specaug(features_BTF, batch.num_frames_B)
        return encode(
            self._model, features_BTF, batch.num_frames_B, zero_padding=self._zero_padding
        )

    def _cross_entropy(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor, *, training: bool
    ) -> tuple[torch.Tensor, int]:
        """The mean over the target tokens, and how many these are."""
        model = self._model
        embeddings_BLD = embed(model, batch, encoded_BTD, num_frames_B)
        with llm_autocast(model, embeddings_BLD.device):
            hidden_ND, labels_N = target_states(model, batch, embeddings_BLD)
            if training:
                logits_NV = model.llm.lm_head(hidden_ND)
                return F.cross_entropy(logits_NV.float(), labels_N), labels_N.numel()
            sums = [
                F.cross_entropy(model.llm.lm_head(rows_ND).float(), rows_N, reduction="sum")
                for rows_ND, rows_N in zip(
                    torch.split(hidden_ND, HEAD_ROWS), torch.split(labels_N, HEAD_ROWS), strict=True
                )
            ]
        return torch.stack(sums).sum() / labels_N.numel(), labels_N.numel()

    def _ctc(
        self, batch: Batch, encoded_BTD: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        log_probs_BTV = ctc_log_probs(
            self._model, encoded_BTD.detach() if self._detach_ctc else encoded_BTD, num_frames_B
        )
        return F.ctc_loss(
            log_probs_BTV.transpose(0, 1).float(),
            batch.ctc_labels_BU,
            num_frames_B,
            batch.num_ctc_labels_B,
            blank=self._model.blank_id,
            reduction="mean",
            zero_infinity=self._zero_infinity,
        )

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
            num_frames_B,
            batch.num_ctc_labels_B,
            blank=0,
            reduction="mean",
            zero_infinity=self._zero_infinity,
        )


def encode(
    model: Any, features_BTF: torch.Tensor, num_frames_B: torch.Tensor, *, zero_padding: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder output and its lengths; writes into ``features_BTF``."""
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
    token_T = torch.arange(adapted_BTD.shape[1], device=adapted_BTD.device)
    audio_ND = adapted_BTD[token_T < batch.num_audio_tokens_B[:, None]]
    embeddings_BLD = model.llm.get_input_embeddings()(batch.input_ids_BL)
    filled_BLD: torch.Tensor = embeddings_BLD.masked_scatter(
        batch.audio_mask_BL[:, :, None], audio_ND.to(embeddings_BLD.dtype)
    )
    return filled_BLD


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
