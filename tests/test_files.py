"""Writing that an interruption cannot spoil; the processes here are real ones."""

import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest

from jaxseg import files
from jaxseg.errors import InputError

HOLDER = """
import sys, time
from pathlib import Path
from jaxseg import files
with files.exclusive(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(100)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("old")
    with files.atomic_file(path) as file:
        file.write("new, and ")
        file.flush()
        assert path.read_text() == "old"
        file.write("complete: ü")
    assert path.read_text(encoding="utf-8") == "new, and complete: ü"
    assert names(tmp_path) == ["config.json"]


def test_an_exception_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), files.atomic_file(path) as file:
        file.write("half")
        file.flush()
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["config.json"]


def test_a_file_keeps_the_line_ends_that_were_asked_for(tmp_path):
    with files.atomic_file(tmp_path / "a.csv", newline="") as file:
        file.write("a\r\nb\r\n")
    assert (tmp_path / "a.csv").read_bytes() == b"a\r\nb\r\n"


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "above" / "prepared"
    with files.atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        assert not path.exists()
    assert names(path) == ["a"]
    assert names(path.parent) == ["prepared"]


def test_an_exception_leaves_no_folder(tmp_path):
    interrupted = contextlib.suppress(KeyboardInterrupt)
    with interrupted, files.atomic_folder(tmp_path / "x") as part:
        (part / "a").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_is_as_readable_as_any_other(tmp_path):
    """Colleagues share a cache; a private temporary folder must not become it."""
    (tmp_path / "plain").mkdir()
    with files.atomic_folder(tmp_path / "ours"):
        pass
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_what_a_killed_process_left_goes_at_the_next_attempt(tmp_path):
    (tmp_path / ".prepared.12345").mkdir()
    (tmp_path / ".prepared.12345" / "half").write_text("half")
    (tmp_path / ".other.12345").mkdir()
    with files.atomic_folder(tmp_path / "prepared"):
        pass
    assert names(tmp_path) == [".other.12345", "prepared"]


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/run/.lock."""
    lock = tmp_path / "run" / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process, lock
        process.kill()


def test_a_second_process_is_refused_until_the_first_one_dies(holder):
    process, lock = holder
    with (
        pytest.raises(InputError) as caught,
        files.exclusive(lock, wait=False),
    ):
        pass
    assert caught.value.found == "another process is working in it"
    assert str(lock.parent) in caught.value.expected
    assert "--workdir" in caught.value.fix
    process.send_signal(signal.SIGKILL)
    with files.exclusive(lock, wait=True):
        pass  # the lock of a dead process is free


def test_a_lock_is_free_after_its_body(tmp_path):
    for _ in range(2):
        with files.exclusive(tmp_path / ".lock", wait=False):
            pass
    with pytest.raises(RuntimeError), files.exclusive(tmp_path / ".lock", wait=False):
        raise RuntimeError
    with files.exclusive(tmp_path / ".lock", wait=False):
        pass


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS]
)
def test_a_full_disk_names_the_folder_and_the_way_out(tmp_path, number):
    with (
        pytest.raises(InputError) as caught,
        files.explain_full_disk(tmp_path, "--config.data.cache_dir=DIR"),
    ):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in caught.value.expected
    assert os.strerror(number) in caught.value.found
    assert "GB free" in caught.value.found
    assert caught.value.fix == "--config.data.cache_dir=DIR"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_the_words_of_a_full_disk_are_found_in_other_errors_too(tmp_path, kind):
    with pytest.raises(InputError), files.explain_full_disk(tmp_path, "free some"):
        raise kind("write() failed: No space left on device; closing")


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), RuntimeError()])
def test_other_errors_pass_through(tmp_path, error):
    with pytest.raises(type(error)), files.explain_full_disk(tmp_path, ""):
        raise error
