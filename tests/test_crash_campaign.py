"""A few rounds of the campaign, of each kind; `crash_campaign.py` plays hundreds."""

import pytest
from crash_campaign import SIGNALS, STOPPED, WRONG_INPUT, Campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("campaign"), seed=0)


@pytest.mark.parametrize(
    ("kind", "phase", "code"),
    [
        ("kill -9", "checkpoint", -SIGNALS["kill -9"]),
        ("SIGTERM", "evaluation", STOPPED),
        ("disk full", "any", WRONG_INPUT),
    ],
)
def test_a_run_ends_as_if_nothing_had_happened(campaign, kind, phase, code):
    played = campaign.play(kind, phase)
    assert played.problem == ""
    assert played.interruptions[0].ending.code == code
