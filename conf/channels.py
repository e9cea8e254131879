"""What telephone channels are drawn from: `conf/channel/*.yaml`, typed and checked.

    ranges = load_channel("landline_g711")      # or the path of an own YAML file

A block that is left out does not happen to any utterance; one that is there happens to its
`share` of them. Every pair is a range from which each utterance's own value is drawn, both ends
possible. `trainer.channel` does the drawing and the work.
"""

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from conf.errors import ConfigError
from conf.explain import lines, nearest_hint, problems
from conf.reading import Document, read_yaml
from conf.schema import Block, Share
from conf.writing import format_value

CHANNELS = Path(__file__).parent / "channel"

G711 = ("g711_ulaw", "g711_alaw")
G726 = ("g726_24", "g726_32", "g726_40")
AMR = ("amr_4.75", "amr_5.15", "amr_5.9", "amr_6.7", "amr_7.4", "amr_7.95", "amr_10.2", "amr_12.2")
OPUS = ("opus_6", "opus_8", "opus_12", "opus_16", "opus_24")
CODECS = ("none", *G711, "gsm", *G726, *AMR, *OPUS)
"""What a part of a codec's name may be; the number is the rate in kbit/s."""
NEED_AV = frozenset(AMR + OPUS)
"""Those that the optional extra `av` brings."""
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff")


def _within(low: float, high: float, expected: str) -> AfterValidator:
    """Both numbers of a pair lie there, the smaller one first."""

    def check(pair: list[float]) -> list[float]:
        if not low <= pair[0] <= pair[1] <= high:
            raise ValueError(f"a list of two {expected}, the smaller one first")
        return pair

    return AfterValidator(check)


def _known_codec(name: str) -> str:
    for part in name.split("+"):
        if part not in CODECS:
            hint = nearest_hint(part, CODECS)
            raise ValueError(f"codecs joined by +, of {', '.join(CODECS)}{hint}")
    return name


_PAIR = Field(min_length=2, max_length=2)
Between = Annotated[list[float], _PAIR, _within(-math.inf, math.inf, "numbers")]
AtLeastZero = Annotated[list[float], _PAIR, _within(0, math.inf, "numbers of at least 0")]
Hz = Annotated[list[float], _PAIR, _within(1, 3999, "frequencies from 1 to 3999")]
LossRate = Annotated[list[float], _PAIR, _within(0, 0.5, "numbers from 0 to 0.5")]
Packets = Annotated[list[float], _PAIR, _within(1, math.inf, "numbers of at least 1")]
Voices = Annotated[list[int], _PAIR, _within(1, math.inf, "numbers of at least 1")]
NoiseKind = Literal["white", "pink", "babble", "files"]


class Part(Block):
    """A block of a channel's file."""

    role = "augmentation"


class Handset(Part):
    """The handset's own sound: a slope over the band and a hump, as carbon and cheap ones have."""

    share: Share = 1.0
    """Share of the utterances."""
    tilt_db: Between = [-6.0, 6.0]
    """How much louder the upper edge of the band comes out than the lower one, in dB."""
    peak_db: Between = [0.0, 8.0]
    """Height of the hump, in dB."""
    peak_hz: Hz = [1500.0, 3000.0]
    """Where it is, in Hz."""


class Noise(Part):
    """Noise around the speaker or on the line."""

    share: Share = 1.0
    """Share of the utterances."""
    kinds: Annotated[list[NoiseKind], Field(min_length=1)] = ["white", "pink"]
    """What is drawn from; one that stands there twice comes twice as often."""
    snr_db: Between = [10.0, 30.0]
    """Speech against noise, both within the band, in dB; speech without its pauses."""
    babble_voices: Voices = [3, 6]
    """How many other speakers babble is mixed from."""
    files: list[str] = []
    """Recordings of noise, or folders of them, for the kind `files`; relative to this file."""


class Hum(Part):
    """Mains hum and its odd harmonics."""

    share: Share = 1.0
    """Share of the utterances."""
    hz: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [50.0, 60.0]
    """Frequencies of mains, of which one is drawn."""
    snr_db: Between = [30.0, 50.0]
    """Speech against hum, in dB."""


class Clipping(Part):
    """A stage before the codec that is driven too far."""

    share: Share = 0.1
    """Share of the utterances."""
    over_db: AtLeastZero = [3.0, 12.0]
    """How far the highest peak is above where it is cut, in dB."""


class Loss(Part):
    """Packets of 20 ms that do not arrive, and what the receiver puts in their place."""

    share: Share = 1.0
    """Share of the utterances."""
    rate: LossRate = [0.0, 0.05]
    """Share of the packets that is lost, on average."""
    burst_packets: Packets = [1.0, 3.0]
    """Mean number of packets that are lost in a row."""


class Echo(Part):
    """The speaker's own voice, sent back by the far end."""

    share: Share = 0.2
    """Share of the utterances."""
    delay_ms: AtLeastZero = [20.0, 200.0]
    """How much later it comes, in ms."""
    below_db: AtLeastZero = [15.0, 35.0]
    """How much quieter it is, in dB."""


class ChannelRange(Part):
    """Everything that telephone lines are drawn from."""

    name: str = "channel"
    """What manifests call it; a file's own name where it says none."""
    codecs: Annotated[list[Annotated[str, AfterValidator(_known_codec)]], Field(min_length=1)] = (
        list(G711)
    )
    """Codecs, of which one is drawn; `gsm+g711_alaw` is one after the other."""
    band_hz: Hz = [300.0, 3400.0]
    """Edges of the band that passes, where it has lost 3 dB, in Hz."""
    level_dbfs: Between | None = [-30.0, -16.0]
    """RMS level of the speech in the codec, in dB of full scale; null leaves it as recorded."""
    line_km: AtLeastZero | None = None
    """Length of the copper pair, which takes more of the high frequencies, in km."""
    handset: Handset | None = None
    noise: Noise | None = None
    hum: Hum | None = None
    clipping: Clipping | None = None
    loss: Loss | None = None
    echo: Echo | None = None

    def fingerprint(self) -> str:
        """SHA-256 of all values, with the noise files' names and sizes for their places."""
        digest = hashlib.sha256(self.model_dump_json(exclude={"noise": {"files"}}).encode())
        for path in self.noise.files if self.noise else ():
            digest.update(f"{Path(path).name} {Path(path).stat().st_size}\n".encode())
        return digest.hexdigest()


def channel_names() -> list[str]:
    """The channels of `conf/channel`."""
    return sorted(path.stem for path in CHANNELS.glob("*.yaml"))


def load_channel(name_or_path: str | Path) -> ChannelRange:
    """Read and check a channel.

    Args:
        name_or_path: A name of `channel_names()`, or the path of a YAML file.

    Returns:
        Its ranges; noise files as absolute paths, folders replaced by what they hold.

    Raises:
        ConfigError: There is no such channel or file, or what it says is wrong; all mistakes at
            once, each with file, line and key.
    """
    path = _path(str(name_or_path))
    document = read_yaml(path)
    try:
        ranges = ChannelRange.model_validate({"name": path.stem, **document.values})
    except ValidationError as error:
        raise ConfigError(lines(problems(error, ChannelRange), document.where)) from None
    if clashes := _problems(ranges, document):
        raise ConfigError(clashes)
    if ranges.noise and ranges.noise.files:
        files = _noise_files(ranges.noise.files, document)
        noise = ranges.noise.model_copy(update={"files": files})
        ranges = ranges.model_copy(update={"noise": noise})
    return ranges


def check_installed(ranges: ChannelRange) -> None:
    """Refuses a channel whose codecs cannot run here.

    Raises:
        ConfigError: One needs the extra `av`, which is not installed.
    """
    parts = [part for codec in ranges.codecs for part in codec.split("+")]
    needing = [part for part in parts if part in NEED_AV]
    if needing and importlib.util.find_spec("av") is None:
        raise ConfigError(
            f"channel {ranges.name}: codecs: got {needing[0]}, which needs the package av, "
            "expected it to be installed: pip install 'telesweep[av]'"
        )


def _path(name: str) -> Path:
    if name in channel_names():
        return CHANNELS / f"{name}.yaml"
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        hint = nearest_hint(name, channel_names())
        raise ConfigError(
            f"channel: got {name!r}, expected a .yaml file or one of "
            f"{', '.join(channel_names())}{hint}"
        )
    return path


def _problems(ranges: ChannelRange, document: Document) -> list[str]:
    noise = ranges.noise
    if noise is None or ("files" in noise.kinds) == bool(noise.files):
        return []
    expected = "recordings or folders of them" if "files" in noise.kinds else "files among kinds"
    return [
        f"{document.where('noise.files')}: noise.files: got {format_value(noise.files)} with kinds "
        f"{format_value(noise.kinds)}, expected {expected}"
    ]


def _noise_files(names: Sequence[str], document: Document) -> list[str]:
    found: list[str] = []
    problems: list[str] = []
    for index, name in enumerate(names):
        path = document.path.parent / Path(name).expanduser()
        inside = [path]
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES
            )
        if not inside or not all(file.is_file() for file in inside):
            where = document.where(f"noise.files.{index}")
            problems.append(
                f"{where}: noise.files: got {name!r}, expected a recording of noise or a folder "
                f"with some ({', '.join(AUDIO_SUFFIXES)})"
            )
        found += [str(file.resolve()) for file in inside]
    if problems:
        raise ConfigError(problems)
    return found
