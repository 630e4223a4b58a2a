"""What TensorBoard gets, read back from the event file without TensorBoard."""

import errno
import io
import resource
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from jaxseg.evaluate import tally_decisions
from jaxseg.events import PR_THRESHOLDS, Events
from jaxseg.metrics import tally_scores
from jaxseg.thresholds import Threshold
from jaxseg.writer import Writer


def read_events(folder):
    """(step, value) of every summary; records are length, crc, event, crc."""
    (path,) = folder.iterdir()
    data, values = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        values += [(event.step, value) for value in event.summary.value]
        data = data[16 + size :]
    return values


def test_a_curve_has_the_counts_of_every_threshold(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    scores = np.concatenate([[0, 1], rng.random(48)])
    writer = Writer(tmp_path, [])
    writer.draw(3, {"image": tally_scores(scores, labels)}, None)
    writer.write(3, {"epoch": 1}, {})
    writer.close()
    values = {
        value.tag: (step, value) for step, value in read_events(tmp_path / "events")
    }
    step, value = values["precision_recall/image"]
    assert step == 3
    assert value.metadata.plugin_data.plugin_name == "pr_curves"
    got = np.reshape(value.tensor.float_val, (6, PR_THRESHOLDS))
    for i in (0, 17, 63, 126):
        decision = scores >= i / 126
        tp, fp = (decision & (labels == 1)).sum(), (decision & (labels == 0)).sum()
        fn, tn = (~decision & (labels == 1)).sum(), (~decision & (labels == 0)).sum()
        expected = [tp, fp, tn, fn, tp / max(tp + fp, 1), tp / (tp + fn)]
        assert got[:, i].tolist() == pytest.approx(expected)


def test_nothing_found_has_precision_one(tmp_path):
    writer = Writer(tmp_path, [])
    writer.draw(1, {"mask": tally_scores(np.array([0.1, 0.4]), np.array([0, 1]))}, None)
    writer.close()
    ((_, value),) = read_events(tmp_path / "events")
    tp, fp, _, _, precision, recall = np.reshape(value.tensor.float_val, (6, -1))[:, -1]
    assert (tp, fp, precision, recall) == (0, 0, 1, 0)


def test_the_picture_of_the_epoch_is_there(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "epoch.png")
    writer = Writer(tmp_path, [])
    writer.draw(5, {}, tmp_path / "epoch.png")
    writer.close()
    ((step, value),) = read_events(tmp_path / "events")
    assert (step, value.tag) == (5, "previews")
    shown = Image.open(io.BytesIO(value.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), pixels)


def test_decisions_with_a_threshold_and_both_classes_have_a_curve():
    counts = {
        "image_probs": np.array([[0.2], [0.8]]),
        "label": np.array([0, 1]),
        "histogram": np.array([[[3, 1], [0, 0]], [[2, 0], [0, 0]]]),
    }
    chosen = Threshold(0.5, "max_f1")
    assert tally_decisions(counts, {}) == {}
    found = tally_decisions(counts, {"image": chosen, "mask": chosen})
    assert list(found) == ["image"]  # no pixel is foreground
    assert found["image"].values.tolist() == [0.2, 0.8]


def test_a_full_disk_is_an_error_of_who_writes(tmp_path):
    """Not of a thread that nobody sees, whose full queue is waited for for ever."""
    events = Events(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            events.add_image(0, "noise", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        events.close()
    assert caught.value.errno == errno.EFBIG
