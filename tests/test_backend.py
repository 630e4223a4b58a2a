"""What is decided about the machine."""

import platform
import subprocess
import sys

import pytest

# A thread has an arena of its own in the C library, as those of XLA have.
SECOND_BUFFER = """
import resource, sys, threading
from jaxseg import backend
if sys.argv[1] == "keep":
    backend.keep_memory()
def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=lambda: b"x" * 200_000_000)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
count_faults()
print(count_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
def test_memory_that_was_freed_is_there_without_new_pages():
    def faults_of(what):
        command = [sys.executable, "-c", SECOND_BUFFER, what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults_of("give back") > 5_000  # 200 MB in pages of 4 kB, or some of them
    assert faults_of("keep") < 500
