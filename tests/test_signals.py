"""A signal is answered in time, whatever the main thread is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxseg import signals

SCRIPTS = Path(__file__).parent.parent / "scripts"

# Handlers in Python wait for the end of one call into C: here of a sum of many numbers,
# which lets other threads run as a compilation or a step does.
BUSY = """
import sys, signal, numpy
from jaxseg import signals
told = []
def note(number, frame):
    told.append(number)
    print("told", flush=True)
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
numbers = numpy.ones(50_000_000)
with signals.bounded_stop(float(sys.argv[1])):
    print("busy", flush=True)
    while not (told and len(sys.argv) > 2):
        numpy.sqrt(numbers, out=numbers)
print("ended", flush=True)
"""

# Its last breath is taken when the interpreter has given up its own handlers.
LATE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import command_line
class Late:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"ending\\n")
        sleep(1)
late = Late()
command_line.main(lambda arguments: None)
"""

# As orbax does with what is raised while it reads.
WRAPPED = """
import sys
sys.path.insert(0, sys.argv[1])
import command_line
def run(arguments):
    try:
        raise {error}
    except BaseException as error:
        raise ValueError("could not be read") from error
command_line.main(run)
"""


@pytest.fixture
def start():
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "busy\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_program_that_ends_in_time_ends_as_it_likes(start):
    process = start("60", "obeys")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "told\nended\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_each_signal_to_stop_interrupts_a_script_with_75(number):
    """Also SIGUSR1, as in `#SBATCH --signal=USR1@120`."""
    code = WRAPPED.format(
        error=f"os.kill(os.getpid(), {int(number)}) or time.sleep(60)"
    )
    command = [sys.executable, "-c", f"import os, time\n{code}", str(SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (
        75,
        "\nstopped; the same command goes on\n",
    )


def test_one_that_does_not_is_ended_with_75(start):
    process = start("0.5")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "not saved within 0.5 s; the same command goes on" in err
    assert "ended" not in out


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_it_at_once(start, second):
    process = start("600")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "told\n"
    time.sleep(signals.ECHO + 0.5)
    process.send_signal(second)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped at once" in err


def test_a_signal_that_a_launcher_hands_on_as_well_is_the_same_wish(start):
    process = start("60", "obeys")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("told\nended\n")


def test_without_a_signal_nothing_happens(start):
    process = start("0.1")
    time.sleep(0.3)
    assert process.poll() is None


def test_a_signal_after_the_work_changes_nothing():
    process = subprocess.Popen(
        [sys.executable, "-c", LATE, str(SCRIPTS)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("error", "options", "code", "told"),
    [
        ("KeyboardInterrupt", [], 75, "\nstopped; the same command goes on\n"),
        (
            "KeyboardInterrupt",
            ["--restart"],
            75,
            "\nstopped; the same command without --restart goes on\n",
        ),
        ("OSError", [], 1, "Traceback"),
    ],
)
def test_a_signal_that_a_library_wraps_is_still_one(error, options, code, told):
    command = [sys.executable, "-c", WRAPPED.format(error=error), str(SCRIPTS)]
    command += options
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[: len(told)]) == (code, told)


@pytest.mark.parametrize("text", ["soon", "0", "inf"])
def test_the_time_to_exit_must_be_seconds(text):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "compare.py"), "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"JAXSEG_EXIT_SECONDS": text},
        check=False,
    )
    assert done.returncode == 2
    assert f"found:    '{text}'" in done.stderr
    assert "fix:      JAXSEG_EXIT_SECONDS=30" in done.stderr
