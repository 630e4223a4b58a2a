"""What a checkpoint costs: measured on real ones, weighed as the page says."""

import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import benchmark_checkpoints


def test_a_checkpoint_costs_its_waiting_and_its_share_of_the_cores():
    cost = benchmark_checkpoints.Cost(waits=0.3, cpu_beside=1.2, until_on_disk=5.0)
    assert cost.share(cores=4) == pytest.approx((0.3 + 0.3) / 30)


def test_the_cost_is_measured_on_real_checkpoints(tmp_path):
    cost = benchmark_checkpoints.measure({"weight": jnp.ones(3)}, tmp_path, saves=3)
    assert {path.name for path in tmp_path.iterdir()} == {"step_1", "step_2"}
    assert 0 < cost.waits < cost.until_on_disk
    assert cost.cpu_beside > 0
