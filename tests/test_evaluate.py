"""Counts of a set do not depend on batches, padding or devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from test_loop import parse, tree

from jaxseg import experiment, steps, train_state
from jaxseg.augment import make_normalize
from jaxseg.data.pipeline import EvalLoader
from jaxseg.evaluate import collect_counts
from jaxseg.report.predictions import predictions


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return experiment.build_experiment(parse(tree(tmp_path_factory.mktemp("eval"))))


@pytest.fixture(scope="module")
def variables(built):
    return jax.device_get(train_state.inference_variables(built.init()))


def mesh_of(num_devices):
    devices = np.asarray(jax.devices()[:num_devices])
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def counts_of(built, variables, batch_size, num_devices, positions):
    loader = EvalLoader(
        built.dataset.source,
        built.dataset.labels,
        positions,
        batch_size=batch_size,
        workers=2,
    )
    normalize = make_normalize(built.run.data.mean, built.run.data.std)
    step = jax.jit(steps.make_eval_step(built.model, built.task, normalize))
    return collect_counts(step, variables, loader, mesh_of(num_devices))


def test_batches_padding_and_devices_leave_no_trace(built, variables):
    positions = built.split.indices("train")[:19]  # fills no batch
    whole = counts_of(built, variables, 19, 1, positions)
    for batch_size, num_devices in ((8, 8), (5, 1), (16, 2)):
        other = counts_of(built, variables, batch_size, num_devices, positions)
        assert other.keys() == whole.keys()
        for name in ("histogram", "label"):
            np.testing.assert_array_equal(other[name], whole[name], err_msg=name)
        for name in ("loss", "image_probs", "soft_sums"):
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-5)


def test_counts_are_those_of_the_network_applied_by_hand(built, variables):
    positions = built.split.indices("val")[:3]
    counts = counts_of(built, variables, 2, 1, positions)
    decoder = built.dataset.source.decoder
    out = {k: np.empty((3, *s), d) for k, (s, d) in decoder.fields().items()}
    built.dataset.source.read(positions, out)
    pixels = (out["image"] / 255.0 - 0.5) / 0.25
    outputs = built.model.apply(variables, pixels.astype("f4"), train=False)
    probs = 1 / (1 + np.exp(-np.asarray(outputs["seg_logits"], np.float64)[..., 0]))
    for i in range(3):
        for label in (0, 1):
            scores = probs[i][out["mask"][i] == label]
            expected, _ = np.histogram(scores, bins=256, range=(0, 1))
            # A score on the edge of two bins may round either way.
            assert np.abs(counts["histogram"][i, label] - expected).sum() <= 4
    np.testing.assert_array_equal(counts["label"], built.dataset.labels[positions])


def test_predictions_come_one_by_one_in_order_and_without_padding(built, variables):
    positions = built.split.indices("train")[[7, 2, 11, 3, 5, 0, 9, 1, 4, 6, 8]]
    counts = counts_of(built, variables, 11, 1, positions)
    seen = 0
    for k, arrays in enumerate(predictions(built, variables, positions, "Testing")):
        assert arrays["index"] == positions[k]
        assert arrays["image"].shape == (32, 32, 3)
        found = arrays["image_probs"]
        np.testing.assert_allclose(found, counts["image_probs"][k], rtol=1e-5)
        soft = (arrays["mask_probs"][..., 0] * (arrays["mask"] == 1)).sum()
        np.testing.assert_allclose(soft, counts["soft_sums"][k, 0, 0], rtol=1e-4)
        seen += 1
    assert seen == 11
