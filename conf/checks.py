"""What is looked at before training: each check's question, why it matters and how to mend it.

`trainer.checks.run_checks` runs them and says what was expected and found; the documents print
this table. The first seven are the source document's steps, in its order; its guide adds the next
three.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["config", "data", "model"]


@dataclass(frozen=True)
class Check:
    """One thing to look at before training."""

    id: str
    part: Part
    """What it needs: the configuration alone, the data, or the built model with its weights."""
    question: str
    why: str
    mend: str


_ALL = (
    Check(
        "encoder-trains",
        "config",
        "Does the encoder learn in the stages that are for it?",
        "A frozen encoder keeps hearing telephone speech as it heard clean speech.",
        "Set audio_encoder_conf.freeze as the stage asks.",
    ),
    Check(
        "learning-rate",
        "config",
        "Is the learning rate above the released model's and below what ruins a model?",
        "Too low and nothing adapts before the epochs are over; too high and the model forgets"
        " all it knew.",
        "Set optim_conf.lr; the stage's own file has the value to start from.",
    ),
    Check(
        "deepspeed-off",
        "config",
        "Is distributed training off?",
        "A fine-tune here runs on one GPU; stock training would start a launcher that waits for"
        " others.",
        "Set train_conf.use_deepspeed (or use_ddp, use_fsdp) to false.",
    ),
    Check(
        "weight-decay",
        "config",
        "Is there weight decay?",
        "Telephone data is small beside what the model was trained on, so weights drift into"
        " overfitting.",
        "Set optim_conf.weight_decay above 0.",
    ),
    Check(
        "specaug-on",
        "config",
        "Are features masked in training?",
        "Masks stand for the gaps and noise of a line and keep the encoder from learning calls by"
        " heart.",
        "Set specaug to SpecAugLFR.",
    ),
    Check(
        "llm-frozen",
        "config",
        "Do the LLM's own weights stay as they are?",
        "There is too little text in a telephone corpus to train a language model with.",
        "Set llm_conf.freeze to true; for the LLM use adapters (llm_conf.use_lora).",
    ),
    Check(
        "init-param",
        "config",
        "Are the weights to start from given?",
        "Without them stock FunASR trains random weights and only prints a line about it.",
        "Give --init_param MODEL/model.pt or --model MODEL.",
    ),
    Check(
        "adaptor-freeze",
        "config",
        "Does the adaptor learn in the stage that is for it, and only there?",
        "An adaptor that moves while the encoder moves loses what ties speech to the LLM.",
        "Set audio_adaptor_conf.freeze as the stage asks.",
    ),
    Check(
        "ctc-freeze",
        "config",
        "Does the CTC decoder learn in the stages that are for it?",
        "It reads the encoder's output, so it has to follow a changed encoder, but not in the"
        " stages that leave it for later.",
        "Set ctc_decoder_conf.freeze as the stage asks.",
    ),
    Check(
        "fs-stage",
        "config",
        "Does the frontend's sample rate fit the stage and the weights?",
        "Features at another rate are other features: a model trained at one rate hears noise at"
        " the other.",
        "Set frontend_conf.fs to the rate that the weights were trained at; only stage 1 changes"
        " it.",
    ),
    Check(
        "fs-data",
        "data",
        "Does the data's sample rate fit the frontend's?",
        "Audio above the frontend's rate loses its upper band; mixed rates give two kinds of"
        " features.",
        "Bring the audio to one rate before training.",
    ),
    Check(
        "lora-freeze",
        "config",
        "Do adapters learn where they are used?",
        "The released configuration freezes them, so use_lora alone trains nothing, silently.",
        "Set llm_conf.lora_conf.freeze_lora to false together with llm_conf.use_lora.",
    ),
    Check(
        "trains-something",
        "config",
        "Does anything learn at all?",
        "With every part frozen, or no loss that reaches what trains, epochs pass and nothing"
        " changes.",
        "Unfreeze the part that the stage is for.",
    ),
    Check(
        "text-path",
        "config",
        "Can the text that users get change?",
        "The CTC decoder is beside the path from speech to the LLM's text: training it alone moves"
        " valid/cer_ctc and never valid/cer.",
        "Train encoder, adaptor or adapters too, or judge by valid/cer_ctc.",
    ),
    Check(
        "warmup",
        "data",
        "Does the run last long enough to reach its learning rate?",
        "warmuplr rises until warmup_steps: a shorter run never trains at the learning rate that"
        " it states.",
        "Lower scheduler_conf.warmup_steps or raise train_conf.max_epoch.",
    ),
    Check(
        "intervals",
        "data",
        "Are there enough updates for the intervals of validation and saving?",
        "An interval longer than the run never comes due.",
        "Lower train_conf.validate_interval and save_checkpoint_interval, or do not count on them.",
    ),
    Check(
        "batch-longest",
        "data",
        "Does the longest utterance fit a batch?",
        "An utterance longer than batch_size makes a batch of its own that is larger than the"
        " memory was planned for.",
        "Raise dataset_conf.batch_size or lower dataset_conf.max_source_length.",
    ),
    Check(
        "dither",
        "config",
        "Do features repeat?",
        "With random noise on the samples, texts and CER differ from call to call, and features"
        " cannot be cached.",
        "Set frontend_conf.dither to 0.0.",
    ),
    Check(
        "precision",
        "config",
        "Is one number format chosen?",
        "Two half precisions at once contradict each other.",
        "Leave only one of train_conf.use_bf16 and use_fp16.",
    ),
    Check(
        "channel",
        "config",
        "Is the telephone channel of training there, with its codecs?",
        "A channel that is misspelt, or whose codec is not installed, would end the run only after"
        " the model is loaded.",
        "Name a channel of conf/channel or a YAML file; for AMR and Opus: pip install"
        " 'telesweep[av]'.",
    ),
    Check(
        "effects",
        "config",
        "Does every changed key have an effect?",
        "A key that nothing reads changes nothing, however often it is tuned.",
        "Take the key out, or use the one that the table of effects names.",
    ),
    Check(
        "unknown-keys",
        "config",
        "Does the schema know every key?",
        "A misspelt key is accepted silently by FunASR and has no effect.",
        "Spell the key as in the schema, or keep it with --allow-unknown knowingly.",
    ),
    Check(
        "data-paths",
        "data",
        "Are the manifests and every recording there?",
        "Stock training puts another utterance in place of one it cannot read, and says nothing.",
        "Correct the paths; relative ones are looked for beside the manifest.",
    ),
    Check(
        "decoding",
        "data",
        "Can the recordings be decoded, and do they hold sound?",
        "A header can be whole while the samples behind it are not.",
        "Convert or leave out the named files.",
    ),
    Check(
        "bandwidth",
        "data",
        "Is the audio what its sample rate claims?",
        "An upsampled recording has a header of 16 kHz and the sound of a telephone, and clean"
        " speech among calls teaches what is not wanted.",
        "Put clean speech through a telephone channel first, or correct the lists.",
    ),
    Check(
        "lengths",
        "data",
        "Are the utterances within the configured lengths?",
        "What is outside the limits is left out of training.",
        "Cut long recordings at pauses, or change the limits in dataset_conf.",
    ),
    Check(
        "texts",
        "data",
        "Does every training utterance have a clean transcript?",
        "Empty texts are left out; marks of annotation errors would be learnt as words.",
        "Take those utterances out of the manifest.",
    ),
    Check(
        "spelling",
        "data",
        "Can the tokenizers spell every character?",
        "A character that becomes the unknown symbol can never be written.",
        "Normalise the transcripts, or use a model whose tokenizers know the characters.",
    ),
    Check(
        "splits",
        "data",
        "Are training, validation and test apart?",
        "A call or an utterance that stands on both sides makes the CER look better than it is.",
        "Split by call and speaker before splitting by utterance.",
    ),
    Check(
        "coverage",
        "model",
        "Does the checkpoint hold every weight of every component?",
        "FunASR only prints what is missing and goes on with random weights: the output is garbage"
        " from the first step.",
        "Take the whole checkpoint; one hub's copy lacks the CTC weights.",
    ),
    Check(
        "trainable",
        "model",
        "Do exactly those parameters train that the configuration says?",
        "Counted in the built model: a key that is spelt well can still miss its module.",
        "Compare the counts with the freeze keys; report it if they differ.",
    ),
    Check(
        "memory",
        "model",
        "Do the longest batches of training and evaluation fit the device?",
        "Out of memory often comes hours into a run, with the longest batch.",
        "Lower dataset_conf.batch_size and raise train_conf.accum_grad, or train fewer parts; for "
        "evaluation lower finetune_conf.eval_batch_size.",
    ),
    Check(
        "disk",
        "model",
        "Has the output directory room?",
        "A run that fills the disk loses its last checkpoint.",
        "Choose another --output_dir or lower train_conf.keep_nbest_models.",
    ),
    Check(
        "time",
        "model",
        "How long will it take?",
        "A forecast from one step on this machine, before a night is spent.",
        "Train on more capable hardware, fewer epochs or less data.",
    ),
)

CHECKS: Mapping[str, Check] = {check.id: check for check in _ALL}
"""Every check by its id, in the order in which they are told."""

SEVEN = tuple(CHECKS)[:7]
"""The source document's steps; step n is the n-th."""
GREPS: Mapping[str, str] = {
    "encoder-trains": 'grep -A2 "audio_encoder_conf:" {file} | grep freeze',
    "learning-rate": 'grep "lr:" {file}',
    "deepspeed-off": 'grep "use_deepspeed:" {file}',
    "weight-decay": 'grep "weight_decay:" {file}',
    "specaug-on": 'grep "specaug:" {file}',
    "llm-frozen": 'grep -A3 "llm_conf:" {file} | grep freeze',
}
"""Its commands, for whoever has the file and nothing else."""
