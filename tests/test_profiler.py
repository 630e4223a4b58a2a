"""Steps are traced between the asked ones, and summed up by kind."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxseg.profiler import Profiler, is_operation, kind_of, summarize


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("convolution.5", "convolutions"),
        ("cudnn-conv-bw-filter.3", "convolutions"),
        ("convert_fusion.1", "everything else"),
        ("custom-call.2__onednn$convolution", "convolutions"),
        ("custom-call.11.clone__onednn$matmul", "matrix products"),
        ("dot.2", "matrix products"),
        ("transpose_fusion", "transposes and copies"),
        ("copy.12", "transposes and copies"),
        ("MemcpyH2D", "host transfers"),
        ("MemcpyD2D", "transposes and copies"),
        ("all-reduce-start.1", "collectives"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "collectives"),
        ("void cudnn::ops::nchwToNhwcKernel<float>(Params)", "transposes and copies"),
        ("sm90_xmma_fprop_implicit_gemm_cudnn", "convolutions"),
        ("reduce.4", "everything else"),
    ],
)
def test_an_operation_is_of_a_kind(name, kind):
    assert kind_of(name) == kind


def test_events_of_the_runtime_are_no_operations():
    assert is_operation("custom-call.11.clone__onednn$matmul")
    assert is_operation("dot.84")
    assert not is_operation("ThunkExecutor::Execute")
    assert not is_operation("end: dot.84")


def test_a_summary_by_hand():
    """Two steps; 30 ms of convolutions, 8 ms of a copy and 2 ms of the rest."""
    events = [("convolution.1", 0.010), ("convolution.1", 0.014), ("add.3", 0.002)]
    events += [("convolution.2", 0.006), ("copy.1", 0.004), ("copy.1", 0.004)]
    lines = summarize(events, steps=2).splitlines()
    assert lines[0] == "2 steps; time of a device a step"
    assert lines[2].split() == ["15.000", "ms", "75.0%", "convolutions"]
    assert lines[3].split()[:3] == ["4.000", "ms", "20.0%"]
    assert lines[4].endswith("5.0%  everything else")
    assert lines[7].split()[0] == "12.000"
    assert lines[7].endswith("convolution.1, 1 times")
    assert lines[9].endswith("convolution.2, 0.5 times")


def test_the_asked_steps_are_traced(tmp_path, capsys):
    image, kernel = jnp.ones((1, 16, 16, 4)), jnp.ones((3, 3, 4, 4))

    @jax.jit
    def step(image):
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    profiler = Profiler(tmp_path / "profile", (2, 5))
    for k in range(8):
        profiler.look(k, 1, image)
        assert (tmp_path / "profile" / "summary.txt").exists() == (k >= 5)
        image = step(image)
    profiler.end(8, image)
    assert "3 steps are profiled" in capsys.readouterr().out
    text = (tmp_path / "profile" / "summary.txt").read_text()
    assert re.search(r"\d ms +[\d.]+%  \w+", text)
    assert text.count("times") >= 1


def test_a_trace_ends_with_its_epoch_and_never_starts_again(tmp_path):
    profiler = Profiler(tmp_path, (0, 9))
    profiler.look(0, 1, ())
    jnp.ones(3).block_until_ready()
    profiler.end(4, ())
    profiler.look(5, 1, ())
    profiler.end(8, ())
    assert (tmp_path / "summary.txt").read_text().startswith("4 steps")


def test_a_call_of_several_steps_is_traced_for_one_of_them(tmp_path):
    profiler = Profiler(tmp_path, (13, 15))
    for first in (0, 10, 20):
        profiler.look(first, 10, ())
        jnp.ones(3).block_until_ready()
    assert (tmp_path / "summary.txt").read_text().startswith("10 steps")


def test_nothing_is_traced_unless_asked(tmp_path):
    profiler = Profiler(tmp_path / "profile", None)
    for k in range(3):
        profiler.look(k, 1, ())
    profiler.end(3, ())
    assert not (tmp_path / "profile").exists()
