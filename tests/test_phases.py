import dataclasses
import itertools
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxseg import augment, experiment, loop, parsing, phases, plan
from jaxseg.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy images with a bright bar, and its masks."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for number in range(52):
        image = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:16, number % 8 : 24] = 255
        image[mask > 0] += 120
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


NO_HEAD = dict(image_head=False, adjust_gradient=False)


def run_of(folder, *, model=None, **train):
    norm = dict(norm="batch", bn_group=None, activation="relu", dropout=(0.0, 0.0))
    unet = dict(name="unet", widths=(4, 8), decoder="transpose", **norm)
    tree = dict(
        seed=0,
        task=dict(name="segmentation", threshold="max_f1", min_recall=0.9),
        model=model or dict(unet, head_kernel=1, **NO_HEAD),
        data=dict(
            name="folder_segmentation",
            dir=str(folder),
            image_dir="images",
            mask_dir="masks",
            mask_suffix="",
            foreground="bright",
            classes=("background", "bar"),
            classes_file="",
            group_pattern="",
            image_size=(32, 32),
            channels=3,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            split="grouped",
            split_seed=0,
            val_fraction=0.2,
            test_fraction=0.0,
            sampling="shuffle",
            cache="auto",
            augment=dict(hflip=dict(p=0.5)),
        ),
        loss=dict(bce=dict(weight=1.0, pos_weight=1.0)),
        optim=dict(
            name="adam",
            learning_rate=1e-2,
            schedule="cosine",
            plateau=None,
            warmup_epochs=0.0,
            momentum=0.0,
            weight_decay=0.0,
            clip_norm=None,
        ),
        train=dict(
            batch_size=8,
            epochs=4,
            early_stop=None,
            precision="float32",
            monitor="loss",
            accumulate=1,
            ema_decay=None,
            preview=0,
            **train,
        ),
    )
    return parsing.parse(tree, experiment.SCHEMAS)


SIZES = ((8, 1), (16, 2), (32, 1))


def test_grown_batches_have_as_many_pixels(folder):
    sizes = phases.sizes_of(run_of(folder, sizes=SIZES, grow_batch=True))
    assert [(s.image_size, s.batch_size, s.epochs) for s in sizes] == [
        ((8, 8), 128, 1),
        ((16, 16), 32, 2),
        ((32, 32), 8, 1),
    ]
    kept = phases.sizes_of(run_of(folder, sizes=SIZES))
    assert [size.batch_size for size in kept] == [8, 8, 8]


@pytest.fixture(scope="module")
def grown(folder):
    run = run_of(folder, sizes=((16, 3), (32, 1)), grow_batch=True)
    return experiment.build_experiment(run)


def test_steps_and_epochs_agree(grown):
    num_train = len(grown.split.indices("train"))
    per_epoch = [num_train // 32] * 3 + [num_train // 8]
    starts = np.cumsum([0, *per_epoch])
    for epoch, (start, stop) in enumerate(itertools.pairwise(starts)):
        phase = phases.phase_of(grown.phases, epoch)
        assert (
            phase.first_step_of(epoch) == start == phases.step_at(grown.phases, epoch)
        )
        assert phase.first_step_of(epoch + 1) == stop
        assert {phases.epoch_of(grown.phases, step) for step in range(start, stop)} == {
            epoch
        }
    assert phases.epoch_of(grown.phases, starts[-1]) == 4
    half = phases.step_at(grown.phases, 3.5)
    assert half == starts[3] + round(num_train // 8 / 2)
    assert float(grown.schedule(starts[-1])) == pytest.approx(0.0, abs=1e-6)


def test_progress_is_the_share_of_the_epochs_that_are_done():
    """20 epochs of 7 steps, then 30 of 3."""
    first, second = (
        phases.Phase(phases.Size((8, 8), epochs, 1), *start, loader, {})
        for epochs, start, loader in (
            (20, (0, 0), SimpleNamespace(steps_per_epoch=7)),
            (30, (20, 140), SimpleNamespace(steps_per_epoch=3)),
        )
    )
    found = jax.vmap(phases.progress_of((first, second)))(jnp.arange(230))
    epochs = [*np.repeat(np.arange(20), 7), *np.repeat(np.arange(20, 50), 3)]
    np.testing.assert_allclose(found, np.array(epochs) / 50, rtol=1e-6)


def test_every_epoch_sees_its_own_order_of_all_samples(grown):
    first, last = grown.phases
    orders = []
    for phase in (first, last):
        for epoch in range(phase.first_epoch, phase.first_epoch + phase.size.epochs):
            span = phase.first_step_of(epoch), phase.first_step_of(epoch + 1)
            batches = phase.batches(*span)
            orders.append(np.concatenate([batch["index"].copy() for batch in batches]))
            steps = [phase.positions_of(step) for step in range(*span)]
            np.testing.assert_array_equal(np.concatenate(steps), orders[-1])
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        assert len(set(order)) == len(order)


def test_a_run_of_growing_images_resumes_and_compiles_once_per_size(
    folder, tmp_path, capsys
):
    run = run_of(folder, sizes=((16, 3), (32, 1)), grow_batch=True)
    whole = experiment.build_experiment(run)
    loop.train(whole, tmp_path / "whole")
    printed = capsys.readouterr().out
    assert printed.count("train step for") == 2
    assert "train step for 32 x 16 x 16 compiled" in printed
    assert "train step for 8 x 32 x 32 compiled" in printed
    broken = experiment.build_experiment(run)
    training = loop._Training(broken, tmp_path / "broken")
    compile_call = training.calls.compile

    def interrupted(phase, count):
        if phase is broken.phases[1]:
            signal.raise_signal(signal.SIGTERM)
        return compile_call(phase, count)

    training.calls.compile = interrupted
    with pytest.raises(loop.Interrupted):
        training.run_epochs()
    training.close()
    loop.train(broken, tmp_path / "broken")
    one, other = (
        jax.tree.leaves(loop.restore(built, tmp_path / name, "best")[0])
        for built, name in ((whole, "whole"), (broken, "broken"))
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_shrinking_is_the_resize_of_the_decoder():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (2, 32, 48)).astype(np.uint8)
    batch = {"image": jnp.asarray(image), "mask": jnp.asarray(mask)}
    small = augment.shrink(batch, (16, 24))
    assert small["image"].dtype == small["mask"].dtype == jnp.uint8
    for i in range(2):
        resized = Image.fromarray(image[i]).resize((24, 16), Image.Resampling.BILINEAR)
        difference = np.asarray(small["image"][i], int) - np.asarray(resized, int)
        assert np.abs(difference).max() <= 1  # Pillow rounds between its two passes
        nearest = Image.fromarray(mask[i]).resize((24, 16), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(small["mask"][i], nearest)
    assert augment.shrink(batch, (32, 48)) is batch


# Mistakes.


def refusal(make, *arguments, **keys):
    with pytest.raises(InputError) as error:
        make(*arguments, **keys)
    return error.value


@pytest.mark.parametrize(
    ("sizes", "phrase"),
    [
        (((16, 2), (32, 1)), "the epochs sum to 3, and config.train.epochs=4"),
        (((32, 2), (16, 2)), "heights that grow up to 32"),
        (((8, 2), (16, 2)), "heights that grow up to 32"),
        (((0, 2), (32, 2)), "pairs (height, epochs) over 0"),
        (((32, 5), (32, -1)), "pairs (height, epochs) over 0"),
    ],
)
def test_sizes_that_do_not_add_up(folder, sizes, phrase):
    assert phrase in refusal(run_of, folder, sizes=sizes).found


def test_a_size_that_the_stride_does_not_divide(folder):
    run = run_of(folder, sizes=((15, 2), (32, 2)))
    error = refusal(experiment.build_experiment, run)
    assert "divisible by 2" in error.expected
    assert "(15, 15)" in error.found


def test_a_network_for_one_size(folder):
    network = dict(name="simple_cnn", bn_group=None, dropout=0.0)
    run = run_of(folder, model=network, sizes=((16, 2), (32, 2)))
    task = dataclasses.replace(run.task, name="classification")
    run = dataclasses.replace(run, task=task)
    error = refusal(experiment.build_experiment, run)
    assert "images of every size" in error.expected
    assert "simple_cnn" in error.found


def test_grown_batches_larger_than_the_training_part(folder):
    run = run_of(folder, sizes=SIZES, grow_batch=True)
    error = refusal(experiment.build_experiment, run)
    assert "batches that grow to 128" in error.found
    assert error.fix == "--config.train.grow_batch=false"


def test_a_plan_traces_the_network_once_for_each_size(folder, monkeypatch):
    """Which takes seconds for a deep one."""
    traced, original = [], plan._variables_and_outputs

    def trace(model, channels, image_size):
        traced.append(image_size)
        return original(model, channels, image_size)

    monkeypatch.setattr(plan, "_variables_and_outputs", trace)
    plan.make_plan(run_of(folder, sizes=SIZES))
    assert sorted(traced) == [(8, 8), (16, 16), (32, 32)]
