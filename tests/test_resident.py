"""Pixels on the device, and several steps in a call: the same training."""

import gc
import signal

import jax
import numpy as np
import pytest
from test_loop import parse, tree

from jaxseg import experiment, loop, resident, writer
from jaxseg.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resident")


def build(folder, data=None, **train):
    record = tree(folder, **dict(epochs=2, accumulate=1) | train)
    record["data"] |= dict(num_photos=24, num_segmented=5) | (data or {})
    return experiment.build_experiment(parse(record))


def train(built, workdir):
    """The rows of metrics.csv without timings, and the last weights."""
    loop.train(built, workdir)
    rows = writer.read_history(workdir)
    for row in rows:
        del row["images_per_second"], row["input_wait"]
    variables, _ = loop.restore(built, workdir, "last")
    return rows, jax.tree.leaves(variables)


@pytest.fixture(scope="module")
def on_host(folder):
    return train(build(folder), folder / "host")


@pytest.fixture(scope="module")
def on_device(folder):
    """The same from the memory of the device, and the shapes of what stays there."""
    built = build(folder, dict(cache="device"))
    gc.collect()
    gc.disable()
    try:
        trained = train(built, folder / "device")
        return built, trained, [array.shape for array in jax.live_arrays()]
    finally:
        gc.enable()


def test_training_from_device_memory_is_bit_equal(on_device, on_host):
    built, (rows, weights), _ = on_device
    assert any("stay in the memory of the device" in note for note in built.split.notes)
    assert rows == on_host[0]
    for one, other in zip(weights, on_host[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_pixels_leave_the_device_with_the_run(on_device):
    """Without waiting for the garbage collector: the next run brings its own."""
    built, _, shapes = on_device
    (pixels,) = [x.shape for x in built.abstract_data.values() if len(x.shape) == 4]
    assert pixels not in shapes


def test_batches_gathered_on_the_device_are_those_of_the_host(folder):
    host, device = build(folder), build(folder, dict(cache="device"))
    data = device.upload()
    shapes = {name: (x.shape, x.dtype) for name, x in device.abstract_data.items()}
    assert shapes == {name: (x.shape, x.dtype) for name, x in data.items()}
    assert resident.num_bytes(device.abstract_data) == sum(
        x.nbytes for x in data.values()
    )
    assert all(
        len(values) == len(device.split.indices("train")) for values in data.values()
    )
    (read,), (chosen,) = host.phases, device.phases
    steps = zip(read.batches(0, 4), chosen.batches(0, 4), strict=True)
    for batch, places in steps:
        assert places.keys() == {"place", "index"}
        gathered = resident.gather(data, places)
        assert gathered.keys() == batch.keys()
        for name, values in batch.items():
            np.testing.assert_array_equal(gathered[name], values, err_msg=name)
            assert gathered[name].dtype == values.dtype


def test_several_steps_in_a_call_train_alike(folder, on_host):
    """Three calls for the 8 steps of an epoch: the same but for rounding."""
    built = build(folder, dict(cache="device"), steps_per_call=3)
    assert built.phases[0].loader.steps_per_epoch == 8
    rows, weights = train(built, folder / "several")
    for row, expected in zip(rows, on_host[0], strict=True):
        assert float(row["train/loss"]) == pytest.approx(
            float(expected["train/loss"]), rel=1e-4
        )
    for one, other in zip(weights, on_host[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)


def test_a_signal_between_calls_and_a_resume_lose_nothing(folder):
    whole = train(build(folder, steps_per_call=3), folder / "whole")
    built = build(folder, steps_per_call=3)
    training = loop._Training(built, folder / "broken")
    compile_call = training.calls.compile

    def interrupted(phase, count):
        call = compile_call(phase, count)

        def run(*arguments):
            if training.step >= phase.loader.steps_per_epoch:
                signal.raise_signal(signal.SIGTERM)
            return call(*arguments)

        return run

    training.calls.compile = interrupted
    with pytest.raises(loop.Interrupted, match=f"at step {training_step(built)}"):
        training.run_epochs()
    training.close()
    rows, weights = train(built, folder / "broken")
    assert rows == whole[0]
    for one, other in zip(weights, whole[1], strict=True):
        np.testing.assert_array_equal(one, other)


def training_step(built):
    """Where the first call of the second epoch ends."""
    return built.phases[0].loader.steps_per_epoch + 3


class Device:
    """A device that says how much memory it has."""

    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return {"bytes_limit": self.limit}


class Mesh:
    def __init__(self, limit):
        self.local_devices = [Device(limit)]


@pytest.mark.parametrize(
    ("mode", "limit", "expected"),
    [
        ("auto", 10**9, True),
        ("auto", 10**5, False),
        ("auto", None, False),
        ("host", 10**9, False),
        ("none", 10**9, False),
        ("device", None, True),
        ("device", 10**6, True),
    ],
)
def test_auto_asks_how_much_memory_there_is(folder, mode, limit, expected):
    """100 samples of 32 x 32 x 3 with a mask: 409,600 bytes."""
    built = build(folder)
    data = parse(tree(folder) | dict(data=tree(folder)["data"] | dict(cache=mode))).data
    assert data.cache == mode
    found, note = resident.choose(data, built.dataset.source, 100, Mesh(limit))
    assert found == expected
    assert bool(note) == (mode == "device" or (mode == "auto" and limit is not None))


def test_too_little_memory_for_the_pixels(folder):
    built = build(folder)
    data = parse(
        tree(folder) | dict(data=tree(folder)["data"] | dict(cache="device"))
    ).data
    with pytest.raises(InputError, match="room on each device") as error:
        resident.choose(data, built.dataset.source, 100, Mesh(10**5))
    assert "0.00 GB of training pixels" in error.value.expected
    assert "--config.data.cache=host" in error.value.fix


def test_windows_stay_on_the_host(folder):
    record = tree(folder)
    record["data"] |= dict(cache="device", crop=dict(per_image=1, foreground_share=0.5))
    with pytest.raises(InputError, match="windows of them"):
        experiment.build_experiment(parse(record))
