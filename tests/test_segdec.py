"""SegDecNet's training, against its formulas in NumPy."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxseg import augment, experiment, loop, parsing, phases, run, steps
from jaxseg.errors import InputError
from jaxseg.report import overlays
from jaxseg.tasks import segdec
from jaxseg.types import IGNORE

KEYS = dict(
    delta=0.01,
    soft_label=True,
    dynamic=True,
    weighted=True,
    weight_power=2.0,
    weight_max=3.0,
    weight_per_component=False,
    dilate=1,
    threshold="max_f1",
    min_recall=0.9,
)


def task_of(**changes):
    return segdec(("background", "crack"), **{**KEYS, **changes})


def batch_of(count=4, seed=0):
    """A negative, two positives and a weakly labelled positive."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(size=(count, 3, 2)).astype(np.float32)
    target[0] = 0.0
    mask = (rng.uniform(size=(count, 24, 16)) > 0.5).astype(np.int32)
    mask[0], mask[3] = 0, IGNORE
    return {
        "mask": mask,
        "label": np.array([0, 1, 1, 1], np.int32),
        "seg_target": target,
        "seg_weight": rng.uniform(0.1, 3.0, target.shape).astype(np.float32),
    }


def outputs_of(seed=1):
    rng = np.random.default_rng(seed)
    return {
        "seg_map": rng.normal(0, 3, (4, 3, 2, 1)).astype(np.float32),
        "cls_logits": rng.normal(0, 3, (4, 1)).astype(np.float32),
    }


def cross_entropy(logits, target):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("progress", [None, 0.3])
def test_a_map_of_full_size_has_the_same_loss_without_ignored_pixels(
    weighted, progress
):
    rng, batch = np.random.default_rng(5), batch_of()
    batch["mask"][1, :7] = IGNORE
    target = rng.integers(0, 256, batch["mask"].shape, np.uint8)
    target[0] = 0
    batch["seg_target"] = target
    batch["seg_weight"] = rng.uniform(0.1, 3.0, target.shape).astype(np.float32)
    if progress is not None:
        batch["progress"] = np.full(4, progress, np.float32)
    logits = rng.normal(0, 3, (*target.shape, 1)).astype(np.float32)
    outputs = {"seg_logits": logits, "cls_logits": outputs_of()["cls_logits"]}
    task = task_of(weighted=weighted)

    def total(logits):
        losses = task.losses(outputs | {"seg_logits": logits}, batch)["loss"]
        return losses.sum(), losses

    gradient, found = jax.grad(total, has_aux=True)(logits)
    weight = batch["seg_weight"] if weighted else np.ones(target.shape)
    pixels = weight * cross_entropy(logits[..., 0], target / 255)
    seg_loss = [pixels[0].mean(), pixels[1, 7:].mean(), pixels[2].mean(), 0.0]
    soft = target.max(axis=(1, 2)) / 255
    label = [0, 1, 1, 1] if progress is None else [0, soft[1], soft[2], 1]
    dec_loss = cross_entropy(outputs["cls_logits"][:, 0], np.array(label))
    shares = (1, 0.01) if progress is None else (1 - progress, 0.01 * progress)
    wanted = shares[0] * np.array(seg_loss) + shares[1] * dec_loss
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    ignored = batch["mask"] == IGNORE
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).all()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("soft_label", [True, False])
@pytest.mark.parametrize("progress", [None, 0.0, 0.3])
def test_the_loss_is_that_of_the_formulas(weighted, soft_label, progress):
    batch, outputs = batch_of(), outputs_of()
    if progress is not None:
        batch["progress"] = np.full(4, progress, np.float32)
    task = task_of(weighted=weighted, soft_label=soft_label)
    losses = task.losses(outputs, batch)
    weight = batch["seg_weight"] if weighted else 1.0
    pixels = weight * cross_entropy(outputs["seg_map"][..., 0], batch["seg_target"])
    seg_loss = pixels.mean(axis=(1, 2)) * [1, 1, 1, 0]  # the last has no mask
    soft = batch["seg_target"].max(axis=(1, 2))
    is_soft = soft_label and progress is not None
    label = [0, soft[1], soft[2], 1] if is_soft else [0, 1, 1, 1]
    dec_loss = cross_entropy(outputs["cls_logits"][:, 0], np.array(label))
    share = progress or 0.0
    shares = (1, 0.01) if progress is None else (1 - share, 0.01 * share)
    wanted = {
        "loss": shares[0] * seg_loss + shares[1] * dec_loss,
        "loss_seg": seg_loss,
        "loss_dec": dec_loss,
    }
    assert losses.keys() == wanted.keys()
    for name, values in wanted.items():
        found = losses[name]
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_balance_moves_from_segmentation_to_decision():
    loader = SimpleNamespace(steps_per_epoch=7)
    phase = phases.Phase(phases.Size((8, 8), 50, 1), 0, 0, loader, {})
    progress = phases.progress_of([phase])
    first, last = (task_of().shares(progress(jnp.array(k))) for k in (0, 50 * 7 - 1))
    assert first == (1.0, 0.0)
    assert last == pytest.approx((0.02, 0.0098), rel=1e-5)
    assert task_of(dynamic=False).shares(0.5) == (1.0, 0.01)
    assert task_of().shares(None) == (1.0, 0.01)


# A small network with the outputs of SegDecNet, so that tests compile in no time.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("kolektor")
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 8)):
        (root / split).mkdir()
        for number in range(count):
            image = rng.integers(60, 120, (128, 136, 3), dtype=np.uint8)
            mask = np.zeros((128, 136), np.uint8)
            if number % 2:
                mask[20 + number : 40 + number, 30:90] = 255
                image[mask > 0] += 100
            Image.fromarray(image).save(root / split / f"{number}.png")
            Image.fromarray(mask).save(root / split / f"{number}_GT.png")
    return root


UNET = dict(
    name="unet",
    widths=(4, 8),
    norm="none",
    bn_group=None,
    activation="relu",
    dropout=(0.0, 0.0),
    decoder="upsample",
    head_kernel=1,
    image_head=True,
    adjust_gradient=True,
)


def tree_of(folder, *, data=None, train=None, task=None, model=None):
    return dict(
        seed=0,
        task=dict(name="segdec", **{**KEYS, **(task or {})}),
        model=model or dict(name="segdecnet", adjust_gradient=True, variant="released"),
        data=dict(
            name="folder_segmentation",
            dir=str(folder),
            image_dir="{split}",
            mask_dir="{split}",
            mask_suffix="_GT",
            foreground="bright",
            classes=("background", "crack"),
            classes_file="",
            group_pattern="",
            image_size=(128, 136),
            channels=3,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            split="published",
            split_seed=0,
            val_fraction=0.2,
            test_fraction=0.0,
            sampling="least_used",
            cache="auto",
            augment={},
        )
        | (data or {}),
        loss={},
        optim=dict(
            name="sgd",
            learning_rate=0.1,
            schedule="constant",
            plateau=None,
            warmup_epochs=0.0,
            momentum=0.0,
            weight_decay=0.0,
            clip_norm=None,
        ),
        train=dict(
            batch_size=8,
            epochs=2,
            early_stop=None,
            precision="float32",
            monitor="ap",
            accumulate=1,
            ema_decay=None,
            reduction="sum",
            preview=2,
        )
        | (train or {}),
    )


def build(folder, **changes):
    config = parsing.parse(tree_of(folder, **changes), experiment.SCHEMAS)
    return experiment.build_experiment(config)


def test_a_run_trains_and_judges_masks_and_decisions(folder, tmp_path, capsys):
    built = build(folder, train=dict(epochs=1))
    labels = built.dataset.record_labels[built.split.indices("train")]
    (phase,) = built.phases
    assert phase.loader.num_samples == 2 * (labels > 0).sum()
    loop.train(built, tmp_path)
    variables, progress = loop.restore(built, tmp_path, "best")
    row = progress.history[0]
    assert {"val/ap", "val/auc", "val/iou/crack/pooled"} <= row.keys()
    # In the only epoch the decision has the share 0.
    assert row["train/loss"] == pytest.approx(row["train/loss_seg"], rel=1e-6)
    val_loss = row["val/loss_seg"] + KEYS["delta"] * row["val/loss_dec"]
    assert row["val/loss"] == pytest.approx(val_loss, rel=1e-6)
    assert (tmp_path / "previews" / "epoch_0001.png").is_file()
    assert np.isfinite(row["train/loss"])
    assert "decision" in variables["params"]
    capsys.readouterr()
    summary = run.finish(built, tmp_path)
    assert "EVAL test (optimistic): AUC " in capsys.readouterr().out
    assert {"recall/crack/per_region", "aupro/crack/per_region"} <= summary.keys()
    assert {"optimistic_f1", "fp_without_misses", "ap_trapezoid"} <= summary.keys()
    check_test_folder(tmp_path / "test", summary)


def check_test_folder(folder, summary):
    """All images stand in it, decided by the image's score."""
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["num_images"] == 8
    for row in rows:
        decided = float(row["prediction"]) >= summary["image_threshold"]
        assert int(row["decision"]) == decided
        name = overlays.overlay_name(float(row["prediction"]), row["name"])
        with Image.open(folder / "overlays" / name) as picture:
            # Six panels of 128 x 136 pixels, enlarged twice.
            assert picture.width >= 3 * 272
    truth = [int(row["ground_truth"]) for row in rows]
    decision = [int(row["decision"]) for row in rows]
    wrong = sum(one != other for one, other in zip(truth, decision, strict=True))
    assert summary["fp"] + summary["fn"] == wrong
    assert sum(truth) == 4
    names = {path.name for path in folder.iterdir()}
    assert {"confusion.png", "confusion_image.png", "losses.png"} <= names


def test_a_unet_trains_at_full_size_with_few_masks_and_flips(folder, tmp_path):
    flips = dict(hflip=dict(p=0.5), vflip=dict(p=0.5))
    built = build(
        folder,
        data=dict(num_segmented=3, augment=flips),
        train=dict(epochs=1, preview=0),
        model=UNET,
    )
    (phase,) = built.phases
    assert phase.abstract_batch["seg_target"].shape == (8, 128, 136)
    for batch in phase.batches(0, phase.loader.steps_per_epoch):
        # In this set images and masks have the size that the network sees.
        shown = batch["mask"] != IGNORE
        target = batch["seg_target"]
        np.testing.assert_array_equal(target[shown], 255 * batch["mask"][shown])
        assert (target[~shown].reshape(-1, 128 * 136).max(axis=1) == 255).all()
        assert (batch["seg_weight"][target == 0] == 1).all()
    loop.train(built, tmp_path)
    _, progress = loop.restore(built, tmp_path, "best")
    assert {"val/ap", "val/iou/crack/pooled"} <= progress.history[0].keys()


def test_targets_of_full_size_move_with_their_image():
    rng = np.random.default_rng(0)
    rows, columns = np.indices((16, 16)).astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=-1)[None].repeat(32, 0)
    weight = rng.uniform(size=(16, 16)).astype(np.float32)
    target = rng.integers(0, 256, (16, 16), np.uint8)
    batch = {
        "image": image,
        "seg_target": target[None].repeat(32, 0),
        "seg_weight": weight[None].repeat(32, 0),
        "index": np.arange(32, dtype=np.int32),
    }
    moves = {name: dict(p=0.5) for name in ("hflip", "vflip", "rot90", "transpose")}
    moved = jax.jit(augment.make_augment(moves))(jax.random.key(0), batch)
    rows, columns = (np.asarray(moved["image"][..., k]) for k in (0, 1))
    np.testing.assert_array_equal(moved["seg_target"], target[rows, columns])
    np.testing.assert_array_equal(moved["seg_weight"], weight[rows, columns])
    assert len({picture.tobytes() for picture in rows * 16 + columns}) == 8


def test_only_num_segmented_masks_of_defects_are_used(folder):
    built = build(folder, data=dict(num_segmented=3))
    (phase,) = built.phases
    seen = {}
    for batch in phase.batches(0, 4 * phase.loader.steps_per_epoch):
        for k, position in enumerate(batch["index"]):
            hidden = bool((batch["mask"][k] == IGNORE).all())
            seen[int(position)] = (hidden, int(batch["label"][k]))
    with_mask = [label for hidden, label in seen.values() if not hidden]
    assert sum(with_mask) == 3
    assert all(label == 1 for hidden, label in seen.values() if hidden)
    for batch in built.eval_loader("val"):
        assert not (batch["mask"] == IGNORE).any()


class Linear:
    """Logits that are linear in the pixels: [N, 8, 8, 1] images."""

    def apply(self, variables, image, *, train, rngs=None, mutable=()):
        del train, rngs
        w = variables["params"]["w"]
        outputs = {
            "seg_map": image[:, ::4, ::4] * w[0],
            "cls_logits": image.mean((1, 2)) * w[1],
        }
        return (outputs, {}) if mutable else outputs


def one_step(batch, reduction):
    """How the weights change in a step of plain gradient descent."""
    from jaxseg.optim import init_plateau
    from jaxseg.train_state import TrainState

    optimizer = optax.sgd(0.5)
    step = steps.make_train_step(
        Linear(),
        task_of(),
        optimizer,
        lambda key, batch: batch,
        lambda batch: batch,
        seed=0,
        accumulate=1,
        ema_decay=None,
        parts={},
        reduction=reduction,
        progress=lambda step: 0.25,
    )
    params = {"w": jnp.array([0.3, -0.2])}
    state = TrainState(
        jnp.zeros((), jnp.int32),
        params,
        {},
        optimizer.init(params),
        init_plateau(),
        None,
    )
    new, logs = jax.jit(step)(state, batch)
    return np.asarray(new.params["w"] - params["w"]), float(logs["loss"])


def small_batch():
    rng = np.random.default_rng(3)
    batch = batch_of()
    batch["seg_target"] = batch["seg_target"][:, :2]
    batch["seg_weight"] = batch["seg_weight"][:, :2]
    batch["image"] = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    return batch


def test_a_summed_step_is_the_sum_of_the_steps_of_its_images():
    batch = small_batch()
    whole, loss = one_step(batch, "sum")
    singles = [
        one_step({name: values[i : i + 1] for name, values in batch.items()}, "sum")
        for i in range(4)
    ]
    np.testing.assert_allclose(
        whole, sum(move for move, _ in singles), rtol=1e-5, atol=1e-7
    )
    assert loss == pytest.approx(np.mean([loss for _, loss in singles]), rel=1e-5)
    mean, _ = one_step(batch, "mean")
    np.testing.assert_allclose(whole, 4 * mean, rtol=1e-5, atol=1e-7)


# Mistakes.


def refusal(folder, **changes):
    with pytest.raises(InputError) as error:
        build(folder, **changes)
    return error.value


def test_more_masks_than_defects_are_refused(folder):
    error = refusal(folder, data=dict(num_segmented=100))
    assert error.found == "100"
    assert "--config.data.num_segmented=12" in error.fix


def test_what_masks_weigh_is_off_where_there_are_none(folder):
    error = refusal(folder, data=dict(num_segmented=0))
    assert "dynamic and weighted on" in error.found
    wanted = "--config.task.dynamic=false --config.task.weighted=false"
    assert error.fix == wanted
    error = refusal(folder, data=dict(num_segmented=0), task=dict(weighted=False))
    assert error.fix == "--config.task.dynamic=false"
    off = dict(weighted=False, dynamic=False)
    assert build(folder, data=dict(num_segmented=0), task=off).phases
    joint = dict(name="joint", mask_weight=1.0, image_weight=1.0, threshold="max_f1")
    tree = tree_of(folder, data=dict(num_segmented=0))
    tree |= dict(
        task=joint | dict(min_recall=0.9),
        loss=dict(bce=dict(weight=1.0, pos_weight=1.0)),
    )
    with pytest.raises(InputError, match=r"masks of defects for .*=joint"):
        experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))


def test_a_list_chooses_the_masks_of_a_training(folder, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(f"train/{i}" for i in range(12)))
    data = dict(segmented_file=str(tmp_path / "list.txt"))
    built = build(folder, data=data)
    train = built.record_split.indices("train")
    ids = {built.dataset.ids[i] for i in train if built.dataset.record_labels[i]}
    listed = {f"train/{i}" for i in range(12)}
    (phase,) = built.phases
    seen = {}
    for batch in phase.batches(0, 2 * phase.loader.steps_per_epoch):
        for k, position in enumerate(batch["index"]):
            hidden = bool((batch["mask"][k] == IGNORE).all())
            seen[built.dataset.ids[position]] = hidden
    assert {name for name in ids & seen.keys() if not seen[name]} <= listed
    assert all(seen[name] for name in (ids - listed) & seen.keys())
    assert any(str(len(ids & listed)) in note for note in built.split.notes)


@pytest.mark.parametrize(
    ("data", "train", "found"),
    [
        (dict(augment=dict(hflip=dict(p=0.5))), {}, "hflip"),
        (dict(crop=dict(per_image=1, foreground_share=0.5)), {}, "config.data.crop"),
        ({}, dict(sizes=((64, 1), (128, 1))), "config.train.sizes"),
    ],
)
def test_what_moves_the_images_is_refused(folder, data, train, found):
    assert found in refusal(folder, data=data, train=train).found


def test_masks_to_hide_need_masks(tmp_path):
    for name in ("clean", "cracked"):
        (tmp_path / name).mkdir()
        for number in range(20):
            pixels = np.full((64, 64, 3), 5 * number, np.uint8)
            pixels[0, 0] = len(name)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    tree = tree_of(tmp_path, data=dict(sampling="shuffle", split="grouped"))
    own = ("image_dir", "mask_dir", "mask_suffix", "foreground", "classes_file")
    tree["data"] = {k: v for k, v in tree["data"].items() if k not in own}
    tree["data"] |= dict(
        name="folder_classification", classes=("clean", "cracked"), image_size=(64, 64)
    )
    tree["task"] = dict(name="classification", threshold="max_f1", min_recall=0.9)
    tree["model"] = dict(name="simple_cnn", bn_group=None, dropout=0.0)
    tree["loss"] = dict(bce=dict(weight=1.0, pos_weight=1.0))
    for count, is_refused in ((3, True), (0, False)):
        tree["data"]["num_segmented"] = count
        config = parsing.parse(tree, experiment.SCHEMAS)
        if is_refused:
            with pytest.raises(InputError, match="at most 0"):
                experiment.build_experiment(config)
        else:
            (phase,) = experiment.build_experiment(config).phases
            assert "mask" not in next(phase.batches(0, 1))


def test_photometry_is_allowed(folder):
    brighter = dict(brightness=dict(p=0.5, shift=0.1))
    assert build(folder, data=dict(augment=brighter)).phases


def test_a_network_without_masks_is_refused(folder):
    tree = tree_of(folder)
    tree["model"] = dict(name="simple_cnn", bn_group=None, dropout=0.0)
    with pytest.raises(InputError, match="seg_logits"):
        experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))


def test_a_network_without_a_decision_is_refused(folder):
    tree = tree_of(folder) | dict(model=UNET | dict(image_head=False))
    with pytest.raises(InputError, match="image_head=True for joint and segdec"):
        experiment.build_experiment(parsing.parse(tree, experiment.SCHEMAS))


def test_three_classes_are_refused():
    with pytest.raises(InputError, match="two classes"):
        segdec(("background", "crack", "rust"), **KEYS)


def test_full_size_targets_are_not_bent(folder):
    moves = dict(rot90=dict(p=0.0), hflip=dict(p=0.5), shear=dict(p=0.5, degrees=9.0))
    error = refusal(folder, data=dict(augment=moves), model=UNET)
    assert error.found == "config.data.augment with shear"
    assert "only flipped or turned" in error.expected


def test_losses_of_the_config_are_refused(folder):
    tree = tree_of(folder) | dict(loss=dict(bce=dict(weight=1.0, pos_weight=1.0)))
    with pytest.raises(InputError, match="the task segdec has losses of its own"):
        parsing.parse(tree, experiment.SCHEMAS)
