"""Channels load, and what is wrong in one is told with its file, line and key."""

import pytest

from conf.channels import CHANNELS, channel_names, load_channel

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", channel_names())
def test_every_shipped_channel_loads_and_opens_with_its_command(name):
    ranges = load_channel(name)
    assert ranges.name == name
    text = (CHANNELS / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"--simulate {name}" in text.partition("\n\n")[0]
