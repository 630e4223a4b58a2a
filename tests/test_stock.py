"""The sets in the cache folder: their sizes, their last use, their end."""

import os
import time

import pytest

from jaxseg import files
from jaxseg.data import stock
from jaxseg.errors import InputError


def make_set(path, num_bytes, days):
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "image.npy").write_bytes(bytes(num_bytes))
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


@pytest.fixture
def cache(tmp_path):
    make_set(tmp_path / "prepared" / "aa", 10, days=40)
    make_set(tmp_path / "decoded" / "bb", 200, days=50)
    make_set(tmp_path / "decoded" / ".bb.123", 5, days=0)  # being written
    (tmp_path / "decoded" / "bb.lock").touch()
    (tmp_path / "xla").mkdir()  # compiled programs are no set
    return tmp_path


def test_sets_are_listed_by_their_last_use(cache):
    kept = stock.list_kept(cache)
    assert [(k.kind, k.path.name, k.num_bytes) for k in kept] == [
        ("decoded", "bb", 200),
        ("prepared", "aa", 10),
    ]
    assert [round(k.days, 2) for k in kept] == [50, 40]
    stock.mark_used(cache / "decoded" / "bb")
    assert [k.path.name for k in stock.list_kept(cache)] == ["aa", "bb"]


def test_nothing_is_listed_where_there_is_no_cache(tmp_path):
    assert stock.list_kept(tmp_path / "none") == []


def test_a_set_is_deleted_whole(cache):
    oldest, other = stock.list_kept(cache)
    stock.remove(oldest)
    assert stock.list_kept(cache) == [other]
    assert {path.name for path in (cache / "decoded").iterdir()} == {
        ".bb.123",
        "bb.lock",
    }


def test_a_set_that_is_being_written_stays(cache):
    oldest = stock.list_kept(cache)[0]
    with (
        files.exclusive(oldest.path.with_suffix(".lock"), wait=True),
        pytest.raises(InputError, match="used by one process"),
    ):
        stock.remove(oldest)
    assert oldest.path.is_dir()


def test_a_folder_of_others_can_be_used(cache, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(os, "utime", refuse)
    stock.mark_used(cache / "decoded" / "bb")
