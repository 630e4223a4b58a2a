"""The loop as a whole: resume after kill -9, early stop, what is never the best."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from test_writer import read_events

import jaxseg
from jaxseg import (
    backend,
    experiment,
    loop,
    model_thresholds,
    parsing,
    run,
    train_state,
    writer,
)
from jaxseg.calls import Calls
from jaxseg.checkpoints import Checkpoints
from jaxseg.data import splits
from jaxseg.data.cache import Decoder
from jaxseg.errors import InputError
from jaxseg.report import finished
from jaxseg.report.previews import Previews
from jaxseg.stopping import Stopping
from jaxseg.thresholds import Threshold

SCRIPTS = Path(__file__).parent.parent / "scripts"
TIMED = {"images_per_second", "input_wait"}


def tree(folder, **train):
    """A config that trains a tiny joint network in seconds, with every switch on."""
    return dict(
        seed=3,
        task=dict(
            name="joint",
            mask_weight=1.0,
            image_weight=0.5,
            threshold="max_f1",
            min_recall=0.9,
        ),
        model=dict(
            name="unet",
            widths=(4, 8),
            norm="batch",
            bn_group=4,
            activation="relu",
            dropout=(0.1, 0.1),
            decoder="transpose",
            head_kernel=1,
            image_head=True,
            adjust_gradient=False,
        ),
        data=dict(
            name="synthetic",
            dir=str(folder / "data"),
            num_photos=12,
            seed=1,
            image_size=(32, 32),
            channels=3,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            split="grouped",
            split_seed=0,
            val_fraction=0.25,
            test_fraction=0.25,
            sampling="balanced",
            cache="host",
            cache_dir=str(folder / "cache"),
            augment=dict(hflip=dict(p=0.5), vflip=dict(p=0.5), transpose=dict(p=0.5)),
        ),
        loss=dict(
            bce=dict(weight=1.0, pos_weight=2.0), dice=dict(weight=1.0, smooth=1.0)
        ),
        optim=dict(
            name="adamw",
            learning_rate=1e-2,
            schedule="cosine",
            plateau=dict(
                factor=0.5,
                patience=1,
                min_delta=1e-4,
                cooldown=1,
                min_learning_rate=1e-5,
            ),
            warmup_epochs=1.0,
            momentum=0.0,
            weight_decay=1e-2,
            clip_norm=1.0,
        ),
        train=dict(
            batch_size=8,
            epochs=4,
            early_stop=None,
            precision="float32",
            monitor="loss",
            accumulate=2,
            ema_decay=0.9,
        )
        | train,
    )


def parse(record):
    return parsing.parse(record, experiment.SCHEMAS)


def launch(folder, workdir, **train):
    """The training command in a process of its own, on one CPU device."""
    config_file = folder / "config.py"
    record = tree(folder, **train)
    config_file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({record!r})\n"
    )
    command = [sys.executable, str(SCRIPTS / "train.py")]
    # Without oneDNN calls compiled programs can be kept, and are: see `backend`.
    flags = "--xla_backend_optimization_level=0"
    if backend.has_jaxlib(0, 12):
        flags += " --xla_cpu_experimental_onednn_custom_call=false"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*command, "--config", str(config_file), "--workdir", str(workdir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def read_rows(workdir):
    with (workdir / "metrics.csv").open(newline="") as file:
        return [
            {name: cell for name, cell in row.items() if name not in TIMED}
            for row in csv.DictReader(file)
        ]


def wait_for(folder, pattern):
    """Until a path appears, at most four minutes."""
    deadline = time.monotonic() + 240
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {folder}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = launch(folder, folder / "run")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return folder


def test_tensorboard_gets_numbers_curves_and_pictures_of_every_epoch(uninterrupted):
    run = uninterrupted / "run"
    with (run / "metrics.csv").open(newline="") as file:
        epochs = len(list(csv.DictReader(file)))
    tags = [value.tag for _, value in read_events(run / "events")]
    assert tags.count("val/loss") == epochs
    for tag in ("previews", "precision_recall/mask", "precision_recall/image"):
        assert tags.count(tag) == epochs, tag


def same_checkpoint(built, one, other, which):
    states = []
    for workdir in (one, other):
        checkpoints = Checkpoints(workdir / "checkpoints")
        step = getattr(checkpoints, which)
        state, progress = checkpoints.restore(step, built.abstract_state)
        checkpoints.close()
        for row in progress["history"]:
            for name in TIMED:
                row.pop(name)
        states.append((step, state, progress))
    (step_a, state_a, progress_a), (step_b, state_b, progress_b) = states
    assert step_a == step_b
    assert progress_a == progress_b
    for a, b in zip(jax.tree.leaves(state_a), jax.tree.leaves(state_b), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_killed_run_goes_on_bit_by_bit(uninterrupted, tmp_path):
    whole, broken = uninterrupted / "run", tmp_path / "run"
    (tmp_path / "data").symlink_to(uninterrupted / "data")
    (tmp_path / "cache").symlink_to(uninterrupted / "cache")
    steps = json.loads((whole / "config.json").read_text())["steps_per_epoch"][0]
    process = launch(tmp_path, broken)
    wait_for(broken, f"checkpoints/step_{2 * steps}/commit_success.txt")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (broken / "model").exists(), "killed too late to prove anything"
    process = launch(tmp_path, broken)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "goes on from step" in output

    assert read_rows(broken) == read_rows(whole)
    weights_a = load_file(whole / "model" / "model.safetensors")
    weights_b = load_file(broken / "model" / "model.safetensors")
    assert weights_a.keys() == weights_b.keys()
    for name, values in weights_a.items():
        np.testing.assert_array_equal(values, weights_b[name], err_msg=name)
    results = [(w / "test" / "results.csv").read_bytes() for w in (whole, broken)]
    assert results[0] == results[1]
    pictures = sorted(path.name for path in (whole / "previews").iterdir())
    assert len(pictures) == 4 + 2
    for name in pictures:
        one, other = (w / "previews" / name for w in (whole, broken))
        assert one.read_bytes() == other.read_bytes(), name
    record = tree(tmp_path, batch_size=8)
    built = experiment.build_experiment(parse(record), whole / "split.csv")
    same_checkpoint(built, whole, broken, "latest")
    same_checkpoint(built, whole, broken, "best")


def test_a_run_that_becomes_longer_is_as_one_that_was_long_from_the_start(tmp_path):
    def train(epochs, workdir):
        record = tree(tmp_path, epochs=epochs, preview=0)
        record["optim"]["schedule"] = "constant"
        built = experiment.build_experiment(parse(record))
        loop.train(built, tmp_path / workdir)
        return built

    for epochs in (1, 2):
        train(epochs, "grown")
    built = train(2, "whole")
    assert read_rows(tmp_path / "grown") == read_rows(tmp_path / "whole")
    same_checkpoint(built, tmp_path / "grown", tmp_path / "whole", "latest")


def test_a_long_epoch_is_saved_in_between_and_goes_on_from_there(tmp_path, monkeypatch):
    def build(**train):
        record = tree(tmp_path, epochs=1, preview=0, **train)
        record["data"]["num_photos"] = 24
        return experiment.build_experiment(parse(record))

    loop.train(build(), tmp_path / "whole")
    built = build(save_every=2)
    steps = built.phases[0].loader.steps_per_epoch
    assert steps > 5
    saved, save = [], Checkpoints.save
    ask, asked = Stopping.ask, itertools.count()

    def note(self, step, *arguments):
        assert jax.config.jax_transfer_guard_device_to_host != "disallow"
        saved.append(step)
        save(self, step, *arguments)

    def fail(self, batch):  # as if the machine were gone, but that it can be tested
        if next(asked) == 5:
            raise RuntimeError("gone")
        return ask(self, batch)

    monkeypatch.setattr(Checkpoints, "save", note)
    monkeypatch.setattr(Stopping, "ask", fail)
    with pytest.raises(RuntimeError, match="gone"):
        loop.train(built, tmp_path / "broken")
    assert saved == [2, 4]
    loop.train(built, tmp_path / "broken")
    assert saved[2:] == [*range(6, steps, 2), steps]
    assert read_rows(tmp_path / "broken") == read_rows(tmp_path / "whole")
    same_checkpoint(built, tmp_path / "broken", tmp_path / "whole", "latest")


def test_a_signal_saves_in_the_middle_of_an_epoch_and_ends_with_75(
    uninterrupted, tmp_path
):
    (tmp_path / "data").symlink_to(uninterrupted / "data")
    (tmp_path / "cache").symlink_to(uninterrupted / "cache")
    # Without pictures at first: they change no number, and a run may go on with them.
    process = launch(tmp_path, tmp_path / "run", preview=0)
    wait_for(tmp_path, "run/checkpoints/step_*/commit_success.txt")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert not (tmp_path / "run" / "previews").exists()
    process = launch(tmp_path, tmp_path / "run")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert read_rows(tmp_path / "run") == read_rows(uninterrupted / "run")
    assert (tmp_path / "run" / "previews" / "epoch_0004.png").is_file()


def test_running_a_finished_run_again_changes_no_result(uninterrupted):
    workdir = uninterrupted / "run"
    before = (workdir / "test" / "results.csv").read_bytes(), read_rows(workdir)
    process = launch(uninterrupted, workdir)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert (
        (workdir / "test" / "results.csv").read_bytes(),
        read_rows(workdir),
    ) == before


def test_the_run_folder_holds_what_the_design_promises(uninterrupted):
    workdir = uninterrupted / "run"
    found = {p.relative_to(workdir).as_posix() for p in workdir.rglob("*")}
    assert {
        "config.json",
        "split.csv",
        "metrics.csv",
        "test/results.csv",
        "test/metrics.json",
        "test/losses.png",
        "test/confusion.png",
        "test/confusion_image.png",
        "test/precision_recall_pixel.png",
        "model/model.safetensors",
        "model/model.json",
        "report.html",
        *(f"previews/epoch_{epoch:04d}.png" for epoch in range(1, 5)),
        "previews/previews.gif",
        "previews/best_and_last.png",
    } <= found
    record = json.loads((workdir / "config.json").read_text())
    assert record["origin"] == {"config": "config.py", "overrides": []}
    assert any(note.endswith(" test") for note in record["notes"])
    rows = read_rows(workdir)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    described = json.loads((workdir / "model" / "model.json").read_text())
    assert described["best_epoch"] == int(best["epoch"])
    assert set(described["thresholds"]) == {"mask", "image"}
    metrics = json.loads((workdir / "test" / "metrics.json").read_text())
    assert metrics["mask_threshold"] == described["thresholds"]["mask"]["value"]


def test_the_saved_model_says_of_an_image_what_the_run_said(uninterrupted):
    predictor = jaxseg.load(uninterrupted / "run" / "model", precision="float32")
    images = {path.stem: path for path in uninterrupted.rglob("images/*.jpg")}
    with (uninterrupted / "run" / "test" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 5
    for row in rows[:8]:
        result = predictor.predict(images[Path(row["name"]).name])
        assert result.score == pytest.approx(float(row["prediction"]), abs=1e-5)
        assert result.found == int(row["decision"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run that in-process tests change the loss or the metrics of."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, tree(folder, ema_decay=None, accumulate=1, batch_size=8)


def script_losses(monkeypatch, losses):
    """Validation finds these losses, epoch by epoch."""
    values, validate = iter(losses), loop._Training._validate

    def scripted(self, variables):
        summary, *others = validate(self, variables)
        return summary | {"loss": next(values)}, *others

    monkeypatch.setattr(loop._Training, "_validate", scripted)


def test_the_best_epoch_is_restored_and_early_stop_counts_from_it(
    tiny, tmp_path, monkeypatch
):
    _, record = tiny
    record = record | dict(train=record["train"] | dict(epochs=6, early_stop=2))
    script_losses(monkeypatch, [0.9, float("nan"), 0.4, 0.5, float("nan"), 0.1])
    built = experiment.build_experiment(parse(record))
    loop.train(built, tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5  # best 0.4, then two worse
    best, progress = loop.restore(built, tmp_path, "best")
    assert (progress.best, progress.best_epoch) == (0.4, 3)
    last, progress = loop.restore(built, tmp_path, "last")
    assert len(progress.history) == 5
    pairs = zip(jax.tree.leaves(best), jax.tree.leaves(last), strict=True)
    assert not all(np.array_equal(one, other) for one, other in pairs)


def test_a_loss_that_is_not_finite_names_step_and_images(tiny, tmp_path):
    _, record = tiny
    record = record | dict(
        optim=record["optim"]
        | dict(name="sgd", learning_rate=1e30, clip_norm=None, warmup_epochs=0.0)
    )
    built = experiment.build_experiment(parse(record))
    with pytest.raises(InputError) as caught:
        loop.train(built, tmp_path)
    assert "a finite loss" in str(caught.value)
    assert "learning_rate" in caught.value.fix
    assert any(name in caught.value.found for name in built.dataset.ids)


def test_the_step_is_traced_once_and_touches_no_host_memory(
    tiny, tmp_path, monkeypatch
):
    _, record = tiny
    record = record | dict(train=record["train"] | dict(epochs=2))
    built = experiment.build_experiment(parse(record))
    traces = []
    task_losses = type(built.task).losses

    def counted(self, outputs, batch):
        if "valid" in batch and self is built.task:
            traces.append(batch["image"].shape)
        return task_losses(self, outputs, batch)

    monkeypatch.setattr(type(built.task), "losses", counted)
    levels = []
    original = jax.transfer_guard

    def recorded(level):
        levels.append(level)
        return original(level)

    monkeypatch.setattr(jax, "transfer_guard", recorded)
    loop.train(built, tmp_path)
    # One trace for the train step and one for the evaluation step.
    assert len(traces) == 2
    assert levels == ["disallow", "disallow"]


@pytest.mark.parametrize("mode", ["host", "device"])
def test_the_step_is_compiled_while_images_are_decoded(
    tiny, tmp_path, monkeypatch, mode
):
    """No image is decoded before the step is compiled; the run ends all the same."""
    _, record = tiny
    data = record["data"] | dict(cache=mode, cache_dir=str(tmp_path / "cache"))
    record = record | dict(data=data, train=record["train"] | dict(epochs=1))
    is_compiled, original = threading.Event(), Decoder.decode

    def decode(self, image):
        assert is_compiled.wait(300)
        return original(self, image)

    compile_call = Calls._compile

    def compile_and_say(*arguments):
        compiled = compile_call(*arguments)
        is_compiled.set()
        return compiled

    monkeypatch.setattr(Decoder, "decode", decode)
    monkeypatch.setattr(Calls, "_compile", compile_and_say)
    built = experiment.build_experiment(parse(record))
    loop.train(built, tmp_path)
    assert len(writer.read_history(tmp_path)) == 1


def test_evaluate_gives_the_numbers_of_the_run(uninterrupted):
    workdir = uninterrupted / "run"
    before = json.loads((workdir / "test" / "metrics.json").read_text())
    record = tree(uninterrupted)
    (workdir / "report.html").unlink()
    summary = run.evaluate(parse(record), workdir, "test")
    assert (workdir / "report.html").is_file()
    for name, value in before.items():
        assert summary[name] == pytest.approx(value, rel=1e-4), name


def test_evaluate_judges_at_the_stored_thresholds(uninterrupted, tmp_path):
    """And so does the report, whose sliders are those of the model."""
    workdir = shutil.copytree(uninterrupted / "run", tmp_path / "run")
    description = json.loads((workdir / "model" / "model.json").read_text())
    stored = {"image": 0.0, "mask": 1.0}
    for kind, chosen in description["thresholds"].items():
        chosen["value"] = stored[kind]
    (workdir / "model" / "model.json").write_text(json.dumps(description))
    summary = run.evaluate(parse(tree(uninterrupted)), workdir, "test")
    assert summary["recall"] == 1
    judged = finished.read_run(workdir)
    assert {kind: t["value"] for kind, t in judged.thresholds.items()} == stored
    assert judged.decisions.all()
    assert not judged.evidence["confusions"][:, :, 1].any()
    assert len(judged.evidence["val_score"])


def test_a_threshold_by_hand_is_judged_and_stored(uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted / "run", tmp_path / "run")
    before = json.loads((workdir / "model" / "model.json").read_text())
    config, chosen = parse(tree(uninterrupted)), {"mask": 0.251, "image": 0.0}
    summary = run.evaluate(config, workdir, "test", chosen=chosen)
    assert (summary["image_threshold"], summary["mask_threshold"]) == (0.0, 64 / 256)
    assert summary["recall"] == 1
    after = json.loads((workdir / "model" / "model.json").read_text())
    assert after["metrics"]["test"]["recall"] == 1
    assert after["thresholds"]["mask"]["value"] == 64 / 256
    assert after["thresholds"]["image"]["rule"] == "by hand"
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"thresholds", "metrics"}
    assert run.evaluate(config, workdir, "test")["image_threshold"] == 0.0
    assert run.run(config, workdir)["image_threshold"] == 0.0  # nothing is left to do
    assert "chosen by hand" in (workdir / "report.html").read_text()
    after["thresholds"] = {"image": 0.3}
    (workdir / "model" / "model.json").write_text(json.dumps(after))
    assert model_thresholds.read(workdir, after["best_epoch"]) is None
    after["thresholds"] = before["thresholds"]
    (workdir / "model" / "model.json").write_text(json.dumps(after))
    with pytest.raises(InputError, match="judged at its best epoch"):
        run.evaluate(config, workdir, "test", "last", chosen={"mask": 0.5})
    with pytest.raises(InputError, match="judged on, test"):
        run.evaluate(config, workdir, "val", chosen={"mask": 0.5})


def test_the_last_epoch_is_judged_beside_the_best(uninterrupted):
    """Its own weights and thresholds in its own folder; the run's stay as they are."""
    workdir = uninterrupted / "run"
    before = {p: p.read_bytes() for p in (workdir / "test").rglob("*.*")}
    summary = run.evaluate(parse(tree(uninterrupted)), workdir, "val", "last")
    assert {p: p.read_bytes() for p in (workdir / "test").rglob("*.*")} == before
    last = float(read_rows(workdir)[-1]["val/loss"])
    assert summary["loss"] == pytest.approx(last, rel=1e-5)
    assert (workdir / "val_last" / "results.csv").is_file()
    assert not (workdir / "val").exists()


def test_a_random_split_leaks_and_its_run_goes_on_all_the_same(tiny, tmp_path):
    _, record = tiny
    data = record["data"] | dict(split="random")
    built = experiment.build_experiment(parse(record | dict(data=data)))
    assert any("leaks" in note for note in built.split.notes)
    splits.write_split(tmp_path / "split.csv", built.dataset.records, built.split)
    again = experiment.build_experiment(
        parse(record | dict(data=data)), tmp_path / "split.csv"
    )
    assert again.split.parts == built.split.parts


def test_a_signal_on_the_last_step_of_an_epoch_loses_no_validation(tiny, tmp_path):
    _, record = tiny
    record = record | dict(train=record["train"] | dict(epochs=2))
    built = experiment.build_experiment(parse(record))
    training = loop._Training(built, tmp_path)
    (phase,) = built.phases
    call = training.calls.compile(phase, 1)

    def signalled(*arguments):
        if training.step == phase.loader.steps_per_epoch - 1:
            signal.raise_signal(signal.SIGTERM)
        return call(*arguments)

    training.calls.compile = lambda phase, count: signalled
    with pytest.raises(loop.Interrupted):
        training.run_epochs()
    training.close()
    assert not (tmp_path / "metrics.csv").exists()  # the next process validates
    assert Checkpoints(tmp_path / "checkpoints").latest == training.step
    loop.train(built, tmp_path)
    rows = writer.read_history(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(row["val/loss"] for row in rows)
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert loop.restore(built, tmp_path, "best")[1].best_epoch == int(best["epoch"])


def test_equal_values_leave_the_first_epoch_the_best_and_lower_the_next_rate(
    tiny, tmp_path, monkeypatch
):
    _, record = tiny
    record = record | dict(
        train=record["train"] | dict(epochs=4, early_stop=3),
        optim=record["optim"] | dict(schedule="constant", warmup_epochs=0.0),
    )
    script_losses(monkeypatch, [0.5, 0.4, 0.4, 0.4])
    built = experiment.build_experiment(parse(record))
    loop.train(built, tmp_path)
    # Each row has the rate that its epoch trained with, as Keras logs it.
    rates = [float(row["learning_rate"]) for row in writer.read_history(tmp_path)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2, 5e-3])
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.best == 2 * built.phases[0].loader.steps_per_epoch
    checkpoints.close()
    assert loop.restore(built, tmp_path, "best")[1].best_epoch == 2


def test_a_metric_that_never_is_a_number_stops_early_without_a_best(
    tiny, tmp_path, monkeypatch
):
    _, record = tiny
    record = record | dict(train=record["train"] | dict(epochs=4, early_stop=2))
    script_losses(monkeypatch, [float("nan")] * 4)
    built = experiment.build_experiment(parse(record))
    loop.train(built, tmp_path)
    assert len(writer.read_history(tmp_path)) == 2
    assert loop.restore(built, tmp_path, "best")[1].best is None


def test_three_pixel_classes_go_the_whole_way(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(24):
        mask = rng.integers(0, 3, (4, 4), np.uint8).repeat(8, 0).repeat(8, 1)
        for folder, pixels in (("images", mask * 100), ("masks", mask)):
            path = tmp_path / "data" / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    record = tree(tmp_path, epochs=2, ema_decay=None, accumulate=1)
    record["model"] |= dict(image_head=False)
    record["task"] = dict(name="segmentation", threshold="max_f1", min_recall=0.9)
    for key in ("num_photos", "seed"):
        del record["data"][key]
    record["data"] |= dict(
        name="folder_segmentation",
        image_dir="images",
        mask_dir="masks",
        mask_suffix="",
        foreground="bright",
        classes_file="",
        classes=("wall", "crack", "rust"),
        group_pattern="",
    )
    record["loss"] = dict(cross_entropy=dict(weight=1.0, class_weights=()))
    summary = run.run(parse(record), tmp_path / "run")
    assert {"iou/wall/pooled", "iou/crack/pooled", "iou/rust/pooled"} <= summary.keys()
    assert len(list((tmp_path / "run" / "previews").glob("epoch_*.png"))) == 2
    pictures = list((tmp_path / "run" / "test" / "overlays").glob("*.jpg"))
    assert len(pictures) == summary["num_images"]
    results = (tmp_path / "run" / "test" / "results.csv").read_text()
    rows = list(csv.DictReader(results.splitlines()))
    assert all(0 <= float(row["prediction"]) <= 1 for row in rows)
    assert "each image is a group of its own" in capsys.readouterr().out
    described = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert described["thresholds"] == {}


def test_a_classifier_shows_images_of_all_its_classes(tiny, tmp_path):
    _, record = tiny
    record = record | dict(
        task=dict(name="classification", threshold="max_f1", min_recall=0.9),
        model=dict(name="simple_cnn", bn_group=None, dropout=0.0),
        loss=dict(bce=dict(weight=1.0, pos_weight=1.0)),
    )
    variables = None
    for count in (0, 3):
        train = record["train"] | dict(preview=count)
        built = experiment.build_experiment(parse(record | dict(train=train)))
        variables = variables or train_state.inference_variables(built.init())
        drawn = Previews(built, tmp_path / f"{count}")
        row = {"epoch": 1, "train/loss": 0.5, "val/loss": 0.4}
        drawn.draw(row, variables, {"image": Threshold(0.5, "max_f1")})
        assert len(drawn._positions) == count
    assert set(built.dataset.labels[drawn._positions]) == {0, 1}
    assert (tmp_path / "3" / "epoch_0001.png").is_file()
    assert not (tmp_path / "0").exists()
