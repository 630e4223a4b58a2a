"""Bars on a terminal, one at a time; what comes beside it is said in lines."""

import io
import re

import pytest
from rich.console import Console

from jaxseg import progress


@pytest.fixture
def terminal(monkeypatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, highlight=False)
    monkeypatch.setattr(progress, "_bars", console)
    return written


def test_a_second_bar_waits_for_nobody_and_speaks_in_lines(terminal):
    outer = progress.track(range(3), 3, "Decoding")
    inner = progress.track(range(2), 2, "Training")
    assert list(zip(outer, inner, strict=False)) == [(0, 0), (1, 1)]
    assert "Training: 2 in " in terminal.getvalue()
    assert "Decoding: " not in terminal.getvalue()
    outer.close()
    assert list(progress.track(range(2), 2, "Later")) == [0, 1]
    assert "Later: 2" not in terminal.getvalue()  # a bar again


def test_a_bar_that_was_given_up_makes_room_for_the_next(terminal):
    def broken():
        yield 1
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            list(progress.track(broken(), 2, "Broken"))
    assert "Broken: " not in terminal.getvalue()


def test_a_log_file_gets_lines(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, "_bars", Console(file=written, soft_wrap=True))
    assert list(progress.track("ab", 2, "Reading")) == ["a", "b"]
    assert list(progress.track("ab", 2, "Epoch 1", quiet=True)) == ["a", "b"]
    assert re.fullmatch(r"Reading: 2 in \d+\.\d s\n", written.getvalue())


def test_what_there_is_to_tell_stands_beside_the_count(monkeypatch, terminal):
    said = iter(["", "loss 0.5000", "loss 0.2500"])
    tracked = progress.track("abc", 3, "Epoch 1", say=lambda: next(said))
    assert list(tracked) == ["a", "b", "c"]
    assert "loss 0.2500" in terminal.getvalue()


def test_a_log_file_gets_it_too_when_it_takes_long(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, "_bars", Console(file=written, soft_wrap=True))
    monkeypatch.setattr(progress, "LINE_SECONDS", -1)
    said = iter(["", "loss 0.5000"])
    list(progress.track("ab", 2, "Epoch 1", quiet=True, say=lambda: next(said)))
    assert written.getvalue() == "Epoch 1: 1 of 2\nEpoch 1: 2 of 2, loss 0.5000\n"
