"""A folder is checked once: by one process, and again where the result is damaged."""

import contextlib
import errno
import json
import os
import threading

import numpy as np
import pytest
from PIL import Image
from test_splits import settings

from jaxseg.data import check, stored
from jaxseg.data.dataset import load_dataset
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`load()` opens a set of two images; `load.checks` counts how often it checks."""
    records = []
    for label in (0, 1):
        path = tmp_path / f"{label}.png"
        Image.fromarray(np.roll(NOISE, label, axis=0)).save(path)
        records.append(Record(str(label), path, None, label, str(label)))
    listing = Listing(tuple(records), ("intact", "cracked"))
    data = settings(cache_dir=str(tmp_path / "cache"), workers=1)
    original = check.check

    def count(*arguments, **options):
        run.checks += 1
        return original(*arguments, **options)

    def run():
        return load_dataset(listing, data)

    run.checks = 0
    monkeypatch.setattr(check, "check", count)
    return run


def the_file(tmp_path):
    (path,) = (tmp_path / "cache" / "checked").glob("*.json")
    return path


def test_an_unchanged_folder_is_checked_once(load):
    first, second = load(), load()
    assert load.checks == 1
    assert first.records == second.records


def test_other_rules_check_again(load, monkeypatch):
    load()
    monkeypatch.setattr(check, "FORMAT", check.FORMAT + 1)
    load()
    assert load.checks == 2


@pytest.mark.parametrize("damage", ["", "{", "null", "{}", "\x00\x00"])
def test_a_damaged_result_is_none(load, tmp_path, damage):
    first = load()
    the_file(tmp_path).write_text(damage)
    assert load().records == first.records
    assert load.checks == 2
    load()
    assert load.checks == 2  # it was written anew


def test_a_result_that_lacks_a_record_s_key_is_none(load, tmp_path):
    load()
    content = json.loads(the_file(tmp_path).read_text())
    del content["records"][0]["size"]
    the_file(tmp_path).write_text(json.dumps(content))
    load()
    assert load.checks == 2


def test_a_full_disk_names_the_folder_of_the_cache(load, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        yield

    monkeypatch.setattr(stored.files, "atomic_file", full)
    with pytest.raises(InputError) as caught:
        load()
    assert caught.value.expected == f"room to write in {tmp_path / 'cache'}"
    assert "--config.data.cache_dir=DIR" in caught.value.fix


def test_two_at_a_time_check_once(load, monkeypatch):
    """The second waits for the first, and reads what it found."""
    begun, counting = threading.Event(), check.check

    def slow(*arguments, **options):
        begun.set()
        second.join(0.3)
        assert second.is_alive()
        return counting(*arguments, **options)

    def follow():
        begun.wait(10)
        load()

    monkeypatch.setattr(check, "check", slow)
    second = threading.Thread(target=follow)
    second.start()
    load()
    second.join(10)
    assert not second.is_alive()
    assert load.checks == 1
