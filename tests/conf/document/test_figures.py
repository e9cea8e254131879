"""A figure as data for Plotly."""

import json

import pytest

from conf.document.figures import make_figure
from conf.document.language import CHINESE, Said

pytestmark = pytest.mark.quick


def test_a_figure_is_plain_data_said_in_its_language() -> None:
    trace = {"x": [1, 2], "y": [3, 4]}
    figure = make_figure(CHINESE, Said("yes"), [trace], x=Said("all"), y="optim_conf.lr")
    assert (figure["title"], figure["data"]) == ("是", [trace])
    assert figure["layout"]["xaxis"]["title"]["text"] == "全部"
    assert figure["layout"]["yaxis"]["title"]["text"] == "optim_conf.lr", "a key is no word"
    assert json.loads(json.dumps(figure)) == figure
