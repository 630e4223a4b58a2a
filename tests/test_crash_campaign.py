"""Ten rounds of the campaign; `crash_campaign.py` plays hundreds."""

import pytest
from crash_campaign import SIGNALS, START, STOPPED, WRONG_INPUT, Campaign

CODES = {
    "kill -9": -SIGNALS["kill -9"],
    "SIGTERM": STOPPED,
    "disk full": WRONG_INPUT,
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("campaign"), seed=0)


@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        ("kill -9", START),
        ("kill -9", "preparation"),
        ("kill -9", "cache build"),
        ("kill -9", "step"),
        ("kill -9", "evaluation"),
        ("kill -9", "checkpoint"),
        ("SIGTERM", "step"),
        ("SIGTERM", "evaluation"),
        ("SIGTERM", "checkpoint"),
        ("disk full", "any"),
    ],
)
def test_a_run_ends_as_if_nothing_had_happened(campaign, kind, phase):
    played = campaign.play(kind, phase)
    assert played.problem == ""
    assert played.interruptions[0].ending.code == CODES[kind]
