"""The schema of a configuration: what every key says of itself, and what it takes."""

import pytest
from pydantic import ValidationError

from conf.keys import all_keys, validate
from conf.schema import FineTuneConfig

pytestmark = pytest.mark.quick


def test_schema_explains_every_key() -> None:
    """A sentence, a role and a severity each; its own defaults are valid."""
    assert len(all_keys()) > 150
    for key in all_keys().values():
        assert key.meaning.endswith("."), key.name
        assert key.expected, key.name
    assert validate(FineTuneConfig().model_dump())[1] == ()


@pytest.mark.parametrize(
    "values",
    [
        {"optim_conf": {"lr": 0}},
        {"optim_conf": {"lr": "1e-4"}},
        {"optim_conf": {"lr": float("nan")}},
        {"optim_conf": {"learning_rate": 1e-4}},
        {"train_conf": {"max_epoch": 1.5}},
        {"audio_encoder_conf": {"freeze": 1}},
        {"specaug_conf": {"time_mask_width_range": [50, 0]}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(values: dict[str, object]) -> None:
    """None is converted, and no key is passed over: both would train something else in silence."""
    with pytest.raises(ValidationError):
        FineTuneConfig.model_validate(values)


def test_a_configuration_does_not_change() -> None:
    """What was checked is what is trained."""
    config = FineTuneConfig()
    with pytest.raises(ValidationError):
        config.optim_conf = config.optim_conf
