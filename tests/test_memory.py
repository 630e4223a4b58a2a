"""What a program needs is known before it runs, and refused where it does not fit."""

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
    misfits.refuse_large_step(need, 4 * 10**9, batch_size=16)
    misfits.refuse_large_step(need, None, batch_size=16)
    misfits.refuse_large_step(None, 1, batch_size=16)


def test_the_devices_of_a_cpu_share_what_is_free():
    free = memory.free_bytes()
    first, *_ = Path("/proc/meminfo").read_text().splitlines()  # MemTotal: ... kB
    total = int(first.split()[1]) * 1024
    assert 0 < free * jax.local_device_count() <= total
