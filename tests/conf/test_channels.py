"""Channels load, and what is wrong in one is told with its file, line and key."""

from pathlib import Path

import pytest

from conf import channels
from conf.channels import (
    CHANNELS,
    NEED_AV,
    ChannelRange,
    channel_names,
    check_installed,
    load_channel,
)
from conf.errors import ConfigError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", channel_names())
def test_every_shipped_channel_loads_and_opens_with_its_command(name: str) -> None:
    ranges = load_channel(name)
    assert ranges.name == name
    text = (CHANNELS / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"--simulate {name}" in text.partition("\n\n")[0]
    if any(part in NEED_AV for codec in ranges.codecs for part in codec.split("+")):
        assert "telesweep[av]" in text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("codecs: [g711]", 1, "codecs.0: got g711, expected codecs joined by +, of none, g711_"),
        ("codecs: [gsm+g711]", 1, "(nearest: g711_"),
        ("codecs: []", 1, "codecs: got [], expected a list of one or more text"),
        ("codecs: gsm", 1, "codecs: got gsm, expected a list"),
        ("codec: gsm", 1, "codec: got an unknown key, expected one of name, codecs, band_hz"),
        ("band_hz: [3400, 300]", 1, "band_hz: got [3400, 300], expected a list of two frequencies"),
        ("band_hz: [300, 4000]", 1, "expected a list of two frequencies from 1 to 3999"),
        ("band_hz: [300]", 1, "band_hz: got [300], expected a list of 2 numbers"),
        ("level_dbfs: loud", 1, "level_dbfs: got loud, expected a list of 2 numbers or null"),
        ("line_km: [-1, 2]", 1, "line_km: got [-1, 2], expected a list of two numbers of at least"),
        ("\nloss: 0.1", 2, "loss: got 0.1, expected a block of keys"),
        ("loss:\n  rate: [0, 0.9]", 2, "loss.rate: got [0, 0.9], expected a list of two numbers"),
        ("loss:\n  rate: [.nan, 0.1]", 2, "loss.rate"),
        ("loss:\n  burst_packets: [0.5, 2]", 2, "two numbers of at least 1, the smaller one first"),
        ("noise:\n  snr_db: [30, 2]", 2, "noise.snr_db: got [30, 2], expected a list of two"),
        ("noise:\n  snr: [2, 3]", 2, "noise.snr: got an unknown key, expected one of share, kinds"),
        ("noise:\n  snr: [2, 3]", 2, "(nearest: snr_db)"),
        (
            "noise:\n  kinds: [street]",
            2,
            "noise.kinds.0: got street, expected white or pink or babble or files",
        ),
        ("noise:\n  kinds: [files]", 1, "noise.files: got [] with kinds [files], expected record"),
        ("noise:\n  files: [x.wav]", 2, "noise.files: got [x.wav] with kinds [white, pink], expec"),
        (
            "noise:\n  kinds: [files]\n  files: [x.wav]",
            3,
            "noise.files: got 'x.wav', expected a recording of noise or a folder with some",
        ),
        ("hum: {share: 1.5}", 1, "hum.share: got 1.5, expected a number >= 0 and <= 1"),
        ("hum: {hz: [0]}", 1, "hum.hz.0: got 0, expected a number > 0"),
        ("- gsm", 1, "got a list, expected `key: value` pairs"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    text: str, line: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_channel(path)
    assert len(raised.value.problems) == 1
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert message in str(raised.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("codecs: [mp3]\nhum: {share: 2}\necho: {delay: 3}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_channel(path)
    assert [problem.split(": ")[1] for problem in raised.value.problems] == [
        *("echo.delay", "codecs.0", "hum.share")
    ]


def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got 'landline', expected a .yaml file or one of gsm, "):
        load_channel("landline")
    with pytest.raises(ConfigError, match=r"own.yaml: no such file, expected a YAML file"):
        load_channel(tmp_path / "own.yaml")


def test_noise_files_are_found_beside_the_file_and_in_folders(tmp_path: Path) -> None:
    (tmp_path / "noises" / "deep").mkdir(parents=True)
    for name in ("b.wav", "deep/a.FLAC", "notes.txt"):
        (tmp_path / "noises" / name).touch()
    path = tmp_path / "own.yaml"
    path.write_text("noise: {kinds: [files], files: [noises]}\n", encoding="utf-8")
    noise = load_channel(path).noise
    assert noise is not None
    assert [Path(file).name for file in noise.files] == ["b.wav", "a.FLAC"]


def test_a_fingerprint_is_of_the_values_and_the_noise_files(tmp_path: Path) -> None:
    def fingerprint(where: str, snr_db: str, noise: str) -> str:
        folder = tmp_path / where
        folder.mkdir(exist_ok=True)
        (folder / "a.wav").write_text(noise)
        (folder / "own.yaml").write_text(
            f"noise: {{kinds: [files], files: [a.wav], snr_db: {snr_db}}}\n"
        )
        return load_channel(folder / "own.yaml").fingerprint()

    first = fingerprint("here", "[1, 2]", "noise")
    assert fingerprint("elsewhere", "[1, 2]", "noise") == first
    assert fingerprint("here", "[1, 3]", "noise") != first
    assert fingerprint("here", "[1, 2]", "other noise") != first


def test_a_codec_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels.importlib.util, "find_spec", lambda name: None)
    check_installed(ChannelRange(codecs=["gsm+g711_alaw"]))
    with pytest.raises(ConfigError) as raised:
        check_installed(ChannelRange(name="own", codecs=["gsm", "amr_12.2+g711_alaw"]))
    assert str(raised.value) == (
        "channel own: codecs: got amr_12.2, which needs the package av, expected it to be "
        "installed: pip install 'telesweep[av]'"
    )
