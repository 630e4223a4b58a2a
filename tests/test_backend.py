"""What is decided about the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg import backend

ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SECOND_BUFFER = """
import resource, sys
from jaxseg import backend
if sys.argv[1] == "huge":
    backend.use_huge_pages()
def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 200_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
count_faults()
print(count_faults(), *sys.argv)
"""


def run_code(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | environment
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.split()


@pytest.mark.skipif(
    not ALLOWED.is_file() or "[madvise]" not in ALLOWED.read_text(),
    reason="Linux gives these pages to programs that ask for them",
)
def test_a_large_buffer_takes_few_faults_in_huge_pages():
    small, *_ = run_code(SECOND_BUFFER, "small")
    huge, *arguments = run_code(SECOND_BUFFER, "huge", "a b", "--c=d")
    assert int(small) > 5_000  # 200 MB in pages of 4 kB, or some of them
    assert int(huge) < int(small) / 10  # 2 MB at a time, but for the ragged ends
    assert arguments == ["-c", "huge", "a", "b", "--c=d"]


def test_settings_of_the_user_are_left_alone():
    """With one of its own for these pages, the program does not start anew."""
    code = "from jaxseg import backend; backend.use_huge_pages()\n"
    code += "import os; print(os.environ['GLIBC_TUNABLES'])"
    own = "glibc.malloc.hugetlb=0"
    assert run_code(code, GLIBC_TUNABLES=own) == [own]
    other = "glibc.malloc.check=0"
    [kept] = run_code(code, GLIBC_TUNABLES=other)
    assert kept in (other, f"{other}:{backend.HUGE_PAGES}")
