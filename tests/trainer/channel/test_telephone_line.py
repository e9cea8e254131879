"""The telephone channel, measured against references that owe nothing to its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from conf.channels import AMR, CODECS, NEED_AV, OPUS, ChannelRange, channel_names, load_channel
from conf.errors import DataError
from trainer.channel.codecs import code, to_pcm
from trainer.channel.draws import Line, draw_line
from trainer.channel.levels import FRAME, RATE_HZ, rms, speech_rms
from trainer.channel.noise import OtherSpeakers
from trainer.channel.packet_loss import conceal, lost_packets
from trainer.channel.response import through_line
from trainer.channel.telephone_line import send, simulate
from trainer.data.audio import Samples
from trainer.data.manifest import Utterance, read_data_list

pytestmark = pytest.mark.quick

PLAIN = Line("test", "none")
RANGES = ChannelRange(codecs=["none"], level_dbfs=None)
BAND = (300.0, 3400.0)


def speech_like(duration_s: float = 4.0, seed: int = 0) -> Samples:
    """Syllables of noise in the band's middle, four a second with pauses between."""
    rng = np.random.default_rng(seed)
    length = int(duration_s * RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / RATE_HZ)
    spectrum[(frequency < 500) | (frequency > 2800)] = 0
    syllables = np.arange(length) % (RATE_HZ // 4) < RATE_HZ // 6
    return (0.1 * np.fft.irfft(spectrum, length) * syllables).astype(np.float32)


def decibel(ratio: float | np.floating[Any]) -> float:
    return float(20 * np.log10(ratio))


def sent(line: Line, samples: Samples, rate: float = RATE_HZ, **options: Any) -> Samples:
    return send(samples, rate, line, RANGES, np.random.default_rng(1), **options)


def drawn(**values: Any) -> Line:
    return Line("test", **{"codec": "none", **values})


# G.711, after the formulas of ITU-T G.711 (tables 1 and 2), in 16-bit numbers


def ulaw(octet: int) -> tuple[int, int]:
    """Value of a mu-law octet as transmitted, and half of its step: 14 bits, shifted to 16."""
    inverted = ~octet & 0xFF
    segment = (inverted >> 4) & 7
    magnitude = ((2 * (inverted & 0x0F) + 33) << segment) - 33
    return (-magnitude if inverted & 0x80 else magnitude) * 4, (1 << segment) * 4


def alaw(octet: int) -> tuple[int, int]:
    """Value of an A-law octet as transmitted, and half of its step: 13 bits, shifted to 16."""
    word = octet ^ 0x55  # the even bits are inverted on the line
    segment, mantissa = (word >> 4) & 7, word & 0x0F
    magnitude = 2 * mantissa + 1 if segment == 0 else (2 * mantissa + 33) << (segment - 1)
    half_step = (1 << max(0, segment - 1)) * 8
    return (magnitude if word & 0x80 else -magnitude) * 8, half_step


LAWS = {"g711_ulaw": ulaw, "g711_alaw": alaw}


@pytest.mark.parametrize("law", LAWS)
def test_all_256_octets_of_g711_decode_as_the_standard_says(law: str, tmp_path: Path) -> None:
    path = tmp_path / "octets.raw"
    path.write_bytes(bytes(range(256)))
    decoded, _ = soundfile.read(
        path,
        dtype="int16",
        samplerate=RATE_HZ,
        channels=1,
        format="RAW",
        subtype=law.removeprefix("g711_").upper(),
    )
    assert decoded.tolist() == [LAWS[law](octet)[0] for octet in range(256)]


@pytest.mark.parametrize(("law", "dropped_bits"), [("g711_ulaw", 2), ("g711_alaw", 3)])
def test_every_sample_becomes_the_value_in_whose_step_it_lies(law: str, dropped_bits: int) -> None:
    half_steps = dict(LAWS[law](octet) for octet in range(256))
    samples = np.arange(-32768, 32768)
    values = to_pcm(code((samples / 32768).astype(np.float32), law)).astype(int)
    assert set(values.tolist()) == set(half_steps)
    assert (np.diff(values) >= 0).all()
    reach = np.array([half_steps[value] for value in values.tolist()]) + (1 << dropped_bits)
    loud = np.abs(samples) > max(half_steps) + half_steps[max(half_steps)]  # cut
    assert (np.abs(values - samples) <= reach)[~loud].all()


# Levels and frequencies


def response_db(line: Line, hz: npt.ArrayLike, band: tuple[float, float] = BAND) -> Any:
    """What a line does to frequencies, measured on an impulse."""
    impulse = np.zeros(8192, dtype=np.float32)
    impulse[4096] = 1.0
    spectrum = np.abs(np.fft.rfft(through_line(impulse, line, band)))
    return 20 * np.log10(spectrum[np.round(np.asarray(hz) / RATE_HZ * 8192).astype(int)])


@pytest.mark.parametrize("band", [BAND, (200.0, 3000.0)])
def test_the_band_ends_where_it_is_said_to(band: tuple[float, float]) -> None:
    low, high = band
    assert response_db(PLAIN, [low, high], band) == pytest.approx([-3, -3], abs=0.3)
    within = np.arange(1.4 * low, 0.9 * high, 50)
    assert response_db(PLAIN, within, band) == pytest.approx(np.zeros(len(within)), abs=0.5)
    assert response_db(PLAIN, [low / 2, low / 3], band).max() < -45
    assert response_db(PLAIN, min(1.15 * high, 3990.0), band) < -25


def test_the_band_is_what_arrives_of_a_wideband_recording() -> None:
    time_s = np.arange(2 * 16000) / 16000
    tones = sum(np.sin(2 * np.pi * hz * time_s) for hz in (60, 1000, 5000, 7000))
    spectrum = np.abs(np.fft.rfft(sent(PLAIN, (0.1 * tones).astype(np.float32), 16000)))
    others = np.delete(spectrum, slice(1950, 2050))
    assert spectrum.argmax() == 2000  # 1000 Hz: the spectrum has half a hertz
    assert decibel(others.max() / spectrum.max()) < -40


def test_handset_and_copper_shape_the_band_as_drawn() -> None:
    tilted = response_db(drawn(handset_tilt_db=6.0), [300, 3400])
    assert tilted[1] - tilted[0] == pytest.approx(6.0, abs=0.3)
    hump = drawn(handset_peak_db=8.0, handset_peak_hz=2000.0)
    assert response_db(hump, 2000) == pytest.approx(8.0, abs=0.2)
    assert abs(response_db(hump, 700)) < 0.5
    copper = response_db(drawn(line_km=5.0), [800, 3000])
    assert copper[0] == pytest.approx(0.0, abs=0.2)
    assert copper[1] == pytest.approx(-5 * 1.6 * (np.sqrt(3000 / 800) - 1), abs=0.3)


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "file"])
@pytest.mark.parametrize("snr_db", [0.0, 12.0, 30.0])
def test_the_snr_is_what_was_drawn(kind: str, snr_db: float, tmp_path: Path) -> None:
    speech = speech_like()
    name = kind
    if kind == "file":
        name = str(tmp_path / "street.wav")
        soundfile.write(name, np.random.default_rng(3).uniform(-0.5, 0.5, 24000), 16000)
    line = drawn(noise=name, snr_db=snr_db, babble_voices=2)
    options = {"babble": lambda rng, length, voices: speech_like(length / RATE_HZ, 5)}
    noise = sent(line, speech, **options) - sent(PLAIN, speech)
    # Measured where somebody speaks: 7 of each syllable's 8 frames, clear of its edges.
    syllables = sent(PLAIN, speech)[: 16 * 2000].reshape(16, 2000)[:, FRAME : 7 * FRAME]
    assert decibel(rms(syllables) / rms(noise)) == pytest.approx(snr_db, abs=0.5)


def test_noise_has_its_colour() -> None:
    speech = speech_like(30.0)
    slopes = {}
    for kind in ("white", "pink"):
        noise = sent(drawn(noise=kind, snr_db=0.0), speech) - sent(PLAIN, speech)
        power = np.square(np.abs(np.fft.rfft(noise)))
        octaves = [power[int(30 * low) : int(60 * low)].mean() for low in (500, 1500)]
        slopes[kind] = 10 * np.log10(octaves[1] / octaves[0]) / np.log2(3)
    assert slopes["white"] == pytest.approx(0.0, abs=0.3)
    assert slopes["pink"] == pytest.approx(-3.0, abs=0.3)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_has_its_frequency_and_level(hz: float) -> None:
    speech = speech_like(10.0)
    hum = sent(drawn(hum_hz=hz, hum_db=20.0), speech) - sent(PLAIN, speech)
    spectrum = np.abs(np.fft.rfft(hum))
    peaks = sorted(np.argsort(spectrum)[-4:] / 10)  # a tenth of a hertz apart
    assert peaks == [hz, 3 * hz, 5 * hz, 7 * hz]
    assert decibel(speech_rms(speech) / rms(hum)) == pytest.approx(20.0, abs=0.5)


def test_an_echo_comes_as_late_and_as_quiet_as_drawn() -> None:
    speech = speech_like()
    clean = sent(PLAIN, speech)
    echo = sent(drawn(echo_ms=125.0, echo_db=12.0), speech) - clean
    correlation = np.correlate(echo, clean, mode="full")[len(clean) - 1 :]
    assert int(correlation.argmax()) == 1000
    assert decibel(rms(clean) / rms(echo)) == pytest.approx(12.0, abs=0.5)


@pytest.mark.parametrize("level_dbfs", [-40.0, -20.0])
def test_the_level_is_what_was_drawn(level_dbfs: float) -> None:
    for loudness in (0.01, 1.0):
        received = sent(drawn(level_dbfs_drawn=level_dbfs), speech_like() * np.float32(loudness))
        assert decibel(speech_rms(received)) == pytest.approx(level_dbfs, abs=0.2)


def test_clipping_cuts_what_is_above() -> None:
    clean = sent(PLAIN, speech_like())
    cut = sent(drawn(clipping_db=6.0), speech_like())
    assert decibel(np.abs(clean).max() / np.abs(cut).max()) == pytest.approx(6.0, abs=0.1)
    below = np.abs(clean) < 0.99 * np.abs(cut).max()
    np.testing.assert_array_equal(cut[below], clean[below])


def test_what_is_too_loud_is_cut_at_full_scale() -> None:
    received = sent(drawn(level_dbfs_drawn=0.0), speech_like())
    assert np.abs(received).max() <= 1.0
    assert (np.abs(received) > 0.999).mean() > 0.01


# Lost packets


@pytest.mark.parametrize(("rate", "burst"), [(0.01, 1.0), (0.05, 2.0), (0.2, 4.0)])
def test_packets_are_lost_at_the_drawn_rate_and_in_bursts(rate: float, burst: float) -> None:
    lost = lost_packets(np.random.default_rng(0), 400_000, rate, burst)
    assert lost.mean() == pytest.approx(rate, rel=0.05)
    num_bursts = int((np.diff(lost.astype(int), prepend=0) == 1).sum())
    assert lost.sum() / num_bursts == pytest.approx(burst, rel=0.05)


def test_lost_packets_are_what_differs() -> None:
    speech = np.random.default_rng(0).uniform(-0.1, 0.1, 120 * RATE_HZ).astype(np.float32)
    clean = sent(PLAIN, speech)
    damaged = sent(drawn(loss_rate=0.05, loss_burst=2.0), speech)
    packets = (clean != damaged).reshape(-1, FRAME).sum(axis=1) > FRAME // 2
    assert packets.mean() == pytest.approx(0.05, abs=0.01)


def test_a_lost_packet_of_a_steady_voice_is_hardly_heard() -> None:
    """A voice of 125 Hz goes on in its own period; silence would have an error of 0 dB."""
    time = np.arange(100 * FRAME) / RATE_HZ
    voice = sum(np.cos(2 * np.pi * 125 * k * time + k * k) / k for k in range(1, 20))
    voice = (0.1 * voice).astype(np.float32)
    lost = np.zeros(100, dtype=bool)
    lost[50] = True
    error = (conceal(voice, lost) - voice)[50 * FRAME : 51 * FRAME]
    assert decibel(rms(error) / rms(voice)) < -10
    np.testing.assert_array_equal(conceal(voice, lost)[: 50 * FRAME], voice[: 50 * FRAME])
    np.testing.assert_array_equal(conceal(voice, lost)[52 * FRAME :], voice[52 * FRAME :])


def test_a_long_loss_fades_to_silence_and_one_at_the_start_is_silence() -> None:
    voice = speech_like()
    lost = np.zeros(len(voice) // FRAME, dtype=bool)
    lost[:2] = lost[20:40] = True
    concealed = conceal(voice, lost)
    assert not concealed[: 2 * FRAME].any()
    assert concealed[20 * FRAME : 21 * FRAME].any()
    assert not concealed[23 * FRAME : 40 * FRAME].any()


# Codecs

MOST_NOISE_DB = {
    # Speech against what the codec adds to it, at least: waveform coders keep the waveform.
    "none": 80,
    "g711_ulaw": 34,
    "g711_alaw": 34,
    "g726_40": 26,
    "g726_32": 22,
    "g726_24": 16,
    "gsm": 4,
}


def demo_speech(corpus: Path, index: int = 0) -> Samples:
    """A wideband recording of the demonstration at 8 kHz, within the band."""
    utterance = read_data_list(corpus / "wideband.jsonl")[index]
    samples, rate_hz = soundfile.read(utterance.source, dtype="float32")
    return sent(drawn(level_dbfs_drawn=-22.0), samples, rate_hz)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_keeps_time_and_length_and_the_voice(codec: str, corpus: Path) -> None:
    if codec in NEED_AV:
        pytest.importorskip("av", reason="AMR and Opus need the extra av")
    speech = demo_speech(corpus)
    for length in (1, 100, FRAME, FRAME + 1, 12345):
        assert len(code(speech[:length], codec)) == length
    coded = code(speech, codec)
    likeness = np.correlate(coded, speech, mode="full") / np.sqrt(
        np.square(coded).sum() * np.square(speech).sum()
    )
    assert int(likeness.argmax()) - (len(speech) - 1) == 0
    if codec in MOST_NOISE_DB:
        noise = rms(coded - speech)
        assert decibel(rms(speech) / noise) > MOST_NOISE_DB[codec]
    else:
        assert likeness.max() > 0.6


@pytest.mark.parametrize("codecs", [AMR, OPUS, ("g726_24", "g726_32", "g726_40")])
def test_a_higher_rate_sounds_nearer_to_the_original(codecs: tuple[str, ...], corpus: Path) -> None:
    if set(codecs) & NEED_AV:
        pytest.importorskip("av", reason="AMR and Opus need the extra av")
    speech = demo_speech(corpus)
    likeness = [np.corrcoef(code(speech, codec), speech)[0, 1] for codec in (codecs[0], codecs[-1])]
    assert likeness[0] < likeness[1]


def test_codecs_follow_one_another() -> None:
    speech = speech_like()
    one_by_one = code(code(speech, "gsm"), "g711_alaw")
    np.testing.assert_array_equal(code(speech, "gsm+g711_alaw"), one_by_one)
    assert (one_by_one != code(speech, "gsm")).any()


# Draws

EVERYTHING: dict[str, Any] = {
    "line_km": [1.0, 5.0],
    "handset": {},
    "noise": {"kinds": ["white"]},
    "hum": {},
    "clipping": {"share": 1.0},
    "loss": {"rate": [0.05, 0.1]},
    "echo": {"share": 1.0},
}


def ranges(**values: Any) -> ChannelRange:
    return ChannelRange.model_validate({"codecs": ["none"], **values})


@pytest.mark.parametrize("option", EVERYTHING)
def test_every_option_has_an_effect_and_says_what_it_drew(option: str) -> None:
    speech = speech_like()
    without, said_without = simulate(speech, RATE_HZ, seed=0, key="a", ranges=ranges())
    with_it, said = simulate(
        *(speech, RATE_HZ), seed=0, key="a", ranges=ranges(**{option: EVERYTHING[option]})
    )
    assert (with_it != without).any()
    assert len(with_it) == len(without) == len(speech)
    added = said.keys() - said_without.keys()
    assert added
    assert said_without.items() <= said.items()  # what else is drawn stays the same


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": ["g711_alaw"]},
        {"band_hz": [300.0, 3000.0]},
        {"level_dbfs": [-40.0, -39.0]},
        {"noise": {"kinds": ["pink"]}},
        {"noise": {"kinds": ["white"], "snr_db": [1.0, 2.0]}},
        {"hum": {"hz": [55.0]}},
        {"hum": {"snr_db": [1.0, 2.0]}},
        {"handset": {"tilt_db": [9.0, 10.0]}},
        {"handset": {"peak_db": [9.0, 10.0]}},
        {"handset": {"peak_hz": [900.0, 1000.0]}},
        {"clipping": {"share": 1.0, "over_db": [20.0, 21.0]}},
        {"loss": {"rate": [0.4, 0.5]}},
        {"loss": {"rate": [0.05, 0.1], "burst_packets": [9.0, 10.0]}},
        {"echo": {"share": 1.0, "delay_ms": [500.0, 501.0]}},
        {"echo": {"share": 1.0, "below_db": [1.0, 2.0]}},
        {"echo": {"share": 0.0}},
        {"handset": {"share": 0.0}},
        {"noise": {"share": 0.0}},
        {"hum": {"share": 0.0}},
        {"clipping": {"share": 0.0}},
        {"loss": {"share": 0.0}},
    ],
    ids=str,
)
def test_every_setting_of_an_option_has_an_effect(change: dict[str, Any]) -> None:
    speech = speech_like()
    usual, _ = simulate(speech, RATE_HZ, seed=0, key="a", ranges=ranges(**EVERYTHING))
    changed, _ = simulate(
        *(speech, RATE_HZ), seed=0, key="a", ranges=ranges(**{**EVERYTHING, **change})
    )
    assert (usual != changed).any()


@pytest.mark.parametrize("name", channel_names())
def test_lines_lie_within_their_ranges_and_happen_to_their_share(name: str) -> None:
    given = load_channel(name)
    lines = [draw_line(0, f"key {number}", given) for number in range(2000)]
    assert {line.codec for line in lines} == set(given.codecs)
    noises = [line for line in lines if line.noise]
    assert given.noise is not None
    assert len(noises) / len(lines) == pytest.approx(given.noise.share, abs=0.04)
    low, high = given.noise.snr_db
    found = [line.snr_db for line in noises if line.snr_db is not None]
    assert low <= min(found) <= low + 0.5
    assert high - 0.5 <= max(found) <= high
    assert {line.babble_voices for line in noises if line.noise == "babble"} == {3, 4, 5, 6}


def test_the_same_seed_and_key_repeat_bit_for_bit_and_others_do_not() -> None:
    speech, given = speech_like(), ranges(**EVERYTHING)

    def received(seed: int, key: str) -> bytes:
        return simulate(speech, RATE_HZ, seed=seed, key=key, ranges=given)[0].tobytes()

    first = received(3, "a")
    assert received(3, "b") != first
    assert received(4, "a") != first
    assert received(3, "a") == first


@pytest.mark.parametrize("name", ["voip_lossy", "gsm", "landline_g711"])
def test_what_arrives_can_be_written_exactly(name: str) -> None:
    received, _ = simulate(
        *(speech_like(), RATE_HZ),
        seed=1,
        key="a",
        ranges=load_channel(name),
        babble=lambda rng, length, voices: speech_like(length / RATE_HZ, 5),
    )
    np.testing.assert_array_equal(to_pcm(received).astype(np.float32) / 32768, received)


@pytest.mark.parametrize("samples", [np.zeros((2, 100), np.float32), np.zeros(0, np.float32)])
def test_only_mono_samples_are_taken(samples: Samples) -> None:
    with pytest.raises(ValueError, match="expected mono samples, but got an array of shape"):
        simulate(samples, 16000, seed=0, key="a", ranges=RANGES)


def test_too_few_samples_to_resample_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples at 48000 Hz, none at 8000 Hz"):
        simulate(np.ones(2, np.float32), 48000, seed=0, key="a", ranges=RANGES)


@pytest.mark.parametrize("length", [1, 7, FRAME, 8000])
def test_silence_and_snippets_stay_finite(length: int) -> None:
    received, _ = simulate(
        np.zeros(length, np.float32), RATE_HZ, seed=0, key="a", ranges=ranges(**EVERYTHING)
    )
    assert np.isfinite(received).all()
    assert len(received) == length


# Noise from elsewhere


def write_voice(path: Path, seed: int, rate_hz: int = 16000) -> Path:
    soundfile.write(path, np.repeat(speech_like(1.0, seed), rate_hz // RATE_HZ), rate_hz)
    return path


def test_babble_is_mixed_from_other_speakers_only(tmp_path: Path) -> None:
    loud = tmp_path / "own.wav"
    soundfile.write(loud, np.zeros(8000), 8000)
    utterances = [
        Utterance("mine", loud, "好", tmp_path / "m.jsonl", 1, speaker="a"),
        Utterance("mine too", loud, "好", tmp_path / "m.jsonl", 2, speaker="a"),
        Utterance("yours", write_voice(tmp_path / "b.wav", 1), "好", tmp_path, 3, speaker="b"),
        Utterance("gone", tmp_path / "gone.wav", "好", tmp_path, 4, speaker="c"),
    ]
    others = OtherSpeakers(utterances).all_but(utterances[0])
    mixed = others(np.random.default_rng(0), 12000, 3)
    assert len(mixed) == 12000
    # Three times the same speaker, as loud each time; of the silent one there is nothing.
    assert speech_rms(mixed) > 1.0
    again = others(np.random.default_rng(0), 12000, 3)
    np.testing.assert_array_equal(mixed, again)


def test_alone_there_is_no_babble(tmp_path: Path) -> None:
    only = Utterance("only", tmp_path / "a.wav", "好", tmp_path / "m.jsonl", 7)
    with pytest.raises(DataError, match="m.jsonl:7: got no other speaker among 50 draws of 1 utt"):
        OtherSpeakers([only]).all_but(only)(np.random.default_rng(0), 100, 1)


def test_a_noise_file_is_cut_or_repeated_and_named(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "street.wav", 2)
    (tmp_path / "noisy.yaml").write_text("noise: {kinds: [files], files: [street.wav]}\n")
    given = load_channel(tmp_path / "noisy.yaml")
    for duration_s in (0.3, 4.0):
        received, said = simulate(
            *(speech_like(duration_s), RATE_HZ), seed=0, key="a", ranges=given
        )
        assert said["noise"] == "street.wav"
        assert said["channel"] == "noisy"
        assert len(received) == duration_s * RATE_HZ
    path.write_text("no sound")
    with pytest.raises(DataError, match=r"street.wav: got .*, expected a recording of noise"):
        simulate(speech_like(), RATE_HZ, seed=0, key="a", ranges=given)
