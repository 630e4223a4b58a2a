"""What is decided about the machine."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import jax
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


BOTH = [f"--{flag}" for flag in backend.CPU_FLAGS]
ADDED = " ".join(BOTH)
OFF = "--xla_cpu_use_onednn=false"
CACHE = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(scope="module", autouse=True)
def flags_are_read():
    """XLA reads its flags once: those of the tests below are for no compiler."""
    jax.devices()


def pretend(monkeypatch, jaxlib, flags):
    monkeypatch.setattr(importlib.metadata, "version", {"jaxlib": jaxlib}.get)
    monkeypatch.setenv("XLA_FLAGS", flags)


@pytest.mark.parametrize(
    ("jaxlib", "before", "after"),
    [
        ("0.10.2", "", ""),
        ("0.11.9", "--mine=1", "--mine=1"),
        ("0.12.0.1", "", ADDED),
        ("0.12.3", "--mine=1", f"--mine=1 {ADDED}"),
        ("0.12.3", OFF, f"{OFF} {BOTH[1]}"),
        ("0.12.3", ADDED, ADDED),
        ("0.13.0", "", ""),
        ("1.12.0", "--mine=1", "--mine=1"),
    ],
)
def test_flags_are_added_where_known_and_not_set(monkeypatch, jaxlib, before, after):
    pretend(monkeypatch, jaxlib, before)
    backend.set_xla_flags()
    assert os.environ["XLA_FLAGS"] == after


def test_this_jaxlib_knows_the_flags():
    """One that it does not know would end the process."""
    code = "from jaxseg import backend; backend.set_xla_flags()\n"
    code += "import jax; print(jax.default_backend())"
    assert run_code(code, XLA_FLAGS="", JAX_PLATFORMS="cpu") == ["cpu"]


@pytest.mark.parametrize(
    ("jaxlib", "flags", "has_bfloat16", "expected"),
    [
        ("0.12.0", ADDED, True, "bfloat16"),
        ("0.12.0", ADDED, False, "float32"),
        ("0.12.0", "", True, "float32"),  # in a program that only imports jaxseg
        ("0.12.0", ADDED.replace("true", "false"), True, "float32"),
        ("0.10.2", ADDED, True, "float32"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_is_faster(
    monkeypatch, jaxlib, flags, has_bfloat16, expected
):
    pretend(monkeypatch, jaxlib, flags)
    monkeypatch.setattr(backend, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert backend.resolve_precision("auto") == expected
    for asked in ("float32", "bfloat16"):
        assert backend.resolve_precision(asked) == asked


def test_accelerators_get_bfloat16(monkeypatch):
    pretend(monkeypatch, "0.10.2", "")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert backend.resolve_precision("auto") == "bfloat16"


@pytest.fixture
def no_cache():
    """No folder for compiled programs; afterwards all is as before."""
    before = {name: getattr(jax.config, name) for name in CACHE}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_unless_they_call_onednn(
    monkeypatch, tmp_path, no_cache
):
    monkeypatch.setenv("XLA_FLAGS", "")
    own = str(tmp_path / "compiled")
    assert own in backend.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == own
    jax.config.update("jax_compilation_cache_dir", "/of/the/user")
    assert "/of/the/user" in backend.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == "/of/the/user"
    assert jax.config.jax_enable_compilation_cache
    monkeypatch.setenv("XLA_FLAGS", ADDED)
    assert "cannot be kept" in backend.enable_compilation_cache(tmp_path)
    assert not jax.config.jax_enable_compilation_cache


def test_a_cache_folder_that_cannot_be_made_is_told(monkeypatch, tmp_path, no_cache):
    monkeypatch.setenv("XLA_FLAGS", "")
    (tmp_path / "file").touch()
    note = backend.enable_compilation_cache(tmp_path / "file")
    assert "not kept" in note
    assert jax.config.jax_compilation_cache_dir is None
