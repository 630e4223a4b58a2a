"""Strict surroundings for every test: 8 CPU devices, no rank promotion, no warnings."""

import os

# Tests compile many small programs once: the optimiser would cost more than it saves.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import signal

import jax
import pytest

from jaxseg import signals

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """What one test compiled, others and the processes that they start find compiled.

    Not the other workers of pytest-xdist: JAX does not write these files at once.
    """
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Prepared sets and caches of a test go to a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def own_signals():
    """Scripts that a test runs in this process leave its signals as they were."""
    before = {n: signal.getsignal(n) for n in signals.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
