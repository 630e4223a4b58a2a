"""What a program needs is known before it runs, and refused where it does not fit."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import memory, misfits
from jaxseg.errors import InputError


def test_the_need_of_a_program_is_the_sizes_of_its_arrays():
    """y = sin(x) + 1 for 1 MiB x: given, made, and nothing else."""
    x = jax.ShapeDtypeStruct((1 << 18,), np.float32)
    compiled = jax.jit(lambda x: jnp.sin(x) + 1).lower(x).compile()
    assert memory.need_of(compiled) == memory.Need(1 << 20, 1 << 20, 0)
    donated = jax.jit(lambda x: jnp.sin(x) + 1, donate_argnums=0).lower(x).compile()
    assert memory.need_of(donated) == memory.Need(1 << 20, 0, 0)


def test_a_step_is_refused_for_what_it_adds_to_its_inputs():
    need = memory.Need(inputs=9 * 10**9, outputs=10**9, between=3 * 10**9)
    with pytest.raises(InputError, match=r"4\.00 GB for activations") as refusal:
        misfits.refuse_large_step(need, 4 * 10**9 - 1, batch_size=16)
    assert "--config.train.batch_size=8" in refusal.value.fix
    with pytest.raises(InputError, match=r"beside 2\.00 GB of pixels") as refusal:
        misfits.refuse_large_step(need, 10**9, batch_size=16, resident=2 * 10**9)
    assert refusal.value.fix.startswith("--config.data.cache=host, ")
    misfits.refuse_large_step(need, 4 * 10**9, batch_size=16)
    misfits.refuse_large_step(need, None, batch_size=16)
    misfits.refuse_large_step(None, 1, batch_size=16)


@pytest.mark.parametrize("version", [0, 1], ids=["v2", "v1"])
def test_a_container_has_what_its_limit_leaves(tmp_path, version):
    """8 GB allowed, 5 GB in use, of which 2 GB are pages of files."""
    limit, used = (tmp_path / name for name in memory.CGROUPS[version])
    limit.parent.mkdir(exist_ok=True)
    limit.write_text("8000000000\n")
    used.write_text("5000000000\n")
    stat = "anon 3000000000\nactive_file 500000000\ninactive_file 1500000000\n"
    limit.with_name("memory.stat").write_text(stat)
    assert memory.left_to_container(tmp_path) == 5 * 10**9
    limit.write_text("2500000000\n")
    assert memory.left_to_container(tmp_path) == 0


def test_without_a_limit_a_container_has_everything(tmp_path):
    assert memory.left_to_container(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000000000\n")
    (tmp_path / "memory.stat").write_text("active_file 1\ninactive_file 2\n")
    assert memory.left_to_container(tmp_path) == math.inf


def test_the_devices_of_a_cpu_share_what_is_free():
    free = memory.free_bytes()
    first, *_ = Path("/proc/meminfo").read_text().splitlines()  # MemTotal: ... kB
    total = int(first.split()[1]) * 1024
    assert 0 < free * jax.local_device_count() <= total
