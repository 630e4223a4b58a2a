"""Batch k is a function of (seed, k); every sample comes once; buffers come back."""

import itertools

import numpy as np
import pytest

from jaxseg.data.cache import Decoder
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.data.pipeline import Buffers, EvalLoader, TrainLoader
from jaxseg.data.sampling import epoch_order


class Numbered:
    """A source whose sample p is an image of p and a mask of p + 100."""

    decoder = Decoder((2, 3), 1, MaskEncoding("ids"))

    def read(self, positions, out):
        out["image"][:] = positions[:, None, None, None]
        out["mask"][:] = positions[:, None, None] + 100


POSITIONS = np.array([3, 4, 5, 9, 10, 11, 20, 21, 30, 31, 32])  # of a set of 40
LABELS = np.arange(40, dtype=np.int32) * 2


def train_loader(*, seed=0, workers=2, batch_size=3, sampling="shuffle"):
    return TrainLoader(
        Numbered(),
        LABELS,
        POSITIONS,
        batch_size=batch_size,
        sampling=sampling,
        seed=seed,
        workers=workers,
    )


def eval_loader(*, batch_size, workers=2, positions=POSITIONS):
    return EvalLoader(
        Numbered(), LABELS, positions, batch_size=batch_size, workers=workers
    )


def samples(batches):
    """Positions of the samples of each batch, from their pixels."""
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


# Training.


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_are_a_function_of_seed_and_step(workers):
    expected = samples(train_loader().batches(0, 9))
    assert samples(train_loader(workers=workers).batches(0, 9)) == expected
    assert samples(train_loader(workers=workers).batches(4, 9)) == expected[4:]
    loader = train_loader(workers=workers)
    assert [loader.positions_of(k).tolist() for k in range(9)] == expected
    assert samples(loader.batches(7, 8)) == expected[7:8]
    assert samples(loader.batches(2, 4)) == expected[2:4]  # an earlier epoch again
    assert samples(train_loader(seed=1).batches(0, 9)) != expected


def test_an_epoch_holds_distinct_samples_of_the_part_only():
    loader = train_loader()
    assert loader.steps_per_epoch == 3  # floor(11 / 3)
    batches = samples(loader.batches(0, 30 * 3))
    rested = set()
    for epoch in range(30):
        seen = list(itertools.chain(*batches[3 * epoch : 3 * epoch + 3]))
        assert len(seen) == len(set(seen)) == 9
        assert set(seen) <= set(POSITIONS.tolist())
        rested |= set(POSITIONS.tolist()) - set(seen)
    assert rested == set(POSITIONS.tolist())  # what is left over changes
    assert batches[:3] != batches[3:6]


def test_image_mask_and_label_belong_to_one_sample():
    for batch in train_loader().batches(0, 6):
        positions = batch["image"][:, 0, 0, 0].astype(int)
        for name, wanted in (("image", positions), ("mask", positions + 100)):
            flat = batch[name].reshape(3, -1)
            np.testing.assert_array_equal(flat, wanted[:, None].repeat(6, 1))
        np.testing.assert_array_equal(batch["label"], LABELS[positions])
        np.testing.assert_array_equal(batch["index"], positions)
        assert batch["label"].dtype == batch["index"].dtype == np.int32
        assert batch["valid"].all()


def test_balanced_epochs_follow_the_labels_of_the_part():
    loader = TrainLoader(
        Numbered(),
        (np.arange(40) >= 30).astype(np.int32),  # 8 of class 0, 3 of class 1
        POSITIONS,
        batch_size=11,
        sampling="balanced",
        seed=0,
        workers=2,
    )
    (batch,) = loader.batches(0, 1)
    assert batch["label"].sum() == 5  # 11 places: 6 and 5
    order = epoch_order(
        (POSITIONS >= 30).astype(np.int32), mode="balanced", seed=0, epoch=0
    )
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], POSITIONS[order])


# Evaluation.


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 16])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_sample_comes_once_in_order_and_padding_is_not_valid(batch_size, workers):
    loader = eval_loader(batch_size=batch_size, workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == -(-11 // batch_size)
        assert all(len(batch["image"]) == batch_size for batch in batches)
        valid = np.concatenate([batch["valid"] for batch in batches])
        assert valid.tolist() == [True] * 11 + [False] * (len(valid) - 11)
        seen = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
        np.testing.assert_array_equal(seen[valid], POSITIONS)
        labels = np.concatenate([batch["label"] for batch in batches])
        np.testing.assert_array_equal(labels[valid], LABELS[POSITIONS])


def test_padding_holds_pixels_of_the_part():
    *_, last = eval_loader(batch_size=4)
    assert last["image"][:, 0, 0, 0].tolist() == [30, 31, 32, 30]


def test_padding_of_a_used_buffer_is_marked_too():
    loader = eval_loader(batch_size=4, workers=1)
    for _ in range(3):
        valid = []
        for batch in loader:
            valid += batch["valid"].tolist()
            loader.buffers.give_back(batch)
        assert sum(valid) == 11


# Buffers.


def test_a_buffer_comes_back_and_is_never_lent_twice():
    buffers = Buffers(Numbered.decoder, 3)
    first, second = buffers.take(), buffers.take()
    assert first is not second
    assert not np.shares_memory(first["image"], second["image"])
    buffers.give_back(first)
    assert buffers.take() is first
    third = buffers.take()
    assert third is not first
    assert third is not second
    assert {name: (a.shape, a.dtype.name) for name, a in first.items()} == {
        "image": ((3, 2, 3, 1), "uint8"),
        "mask": ((3, 2, 3), "uint8"),
        "label": ((3,), "int32"),
        "valid": ((3,), "bool"),
        "index": ((3,), "int32"),
    }


def test_buffers_in_use_keep_their_content():
    loader = train_loader()
    expected = [loader.positions_of(k).tolist() for k in range(60)]
    held, seen = [], set()
    for k, batch in enumerate(loader.batches(0, 60)):
        assert all(batch is not other for _, other in held)
        held.append((k, batch))
        seen.add(id(batch))
        for step, other in held:
            assert samples([other]) == [expected[step]]
        if len(held) == 3:
            loader.buffers.give_back(held.pop(0)[1])
    # 3 are held here, and workers + 1 wait, workers are being filled.
    assert len(seen) <= 3 + 2 + 1 + 2 + 1


def test_a_loader_whose_buffers_never_come_back_still_works():
    loader = train_loader()
    batches = list(loader.batches(0, 12))
    assert len({id(batch) for batch in batches}) == 12
    assert samples(batches) == [loader.positions_of(k).tolist() for k in range(12)]
