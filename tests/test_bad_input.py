"""Bad input from end to end: exit code 2, expected, found and fix, and nothing left."""

import csv
import errno
import html
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from bad_sets import classes, halve, pairs, photo, stripe, write
from PIL import Image

from jaxseg import backend, config, experiment, files, hosts, loop, run, signals
from jaxseg.data.splits import COLUMNS

ROOT = Path(__file__).parents[1]
SEGMENTATION = (
    "model.widths=(4,8)",
    "model.dropout=(0.0,0.0)",
    "model.head_kernel=1",
)
SMALL = ("data.image_size=(32,32)", "train.batch_size=8", "train.epochs=1")


SCRIPTS = ("command_line", "train", "evaluate", "check_data", "prepare_data")


@pytest.fixture(scope="module")
def scripts():
    """The modules of SCRIPTS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        loaded = {}
        for name in SCRIPTS:
            spec = importlib.util.spec_from_file_location(
                name, ROOT / "scripts" / f"{name}.py"
            )
            loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded


@pytest.fixture(autouse=True)
def unchanged_jax(monkeypatch):
    """The scripts set up jax for a whole process; the other tests must not notice."""
    monkeypatch.setattr(backend, "set_xla_flags", lambda: None)
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_numpy_rank_promotion",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_numpy_rank_promotion", "allow")  # as users have it
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def call(scripts, monkeypatch, capsys):
    """`call(script, *arguments)` gives the exit code and what stderr got."""

    def run(script, *arguments):
        arguments = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            scripts["command_line"].main(scripts[script].run)
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def refuse(call, tmp_path):
    """Runs train.py, which must refuse and leave nothing; gives the message."""

    def run(config_name, *overrides, folder=tmp_path / "data"):
        workdir = tmp_path / "runs" / "new"
        code, error = call("train", *command(config_name, folder, workdir, *overrides))
        assert_message(code, error)
        assert not workdir.exists()
        return error

    return run


def command(config_name, folder, workdir, *overrides):
    path = ROOT / "configs" / f"{config_name}.py"
    own = SEGMENTATION if "segmentation" in config_name else ()
    settings = (f"data.dir={folder}", *own, *SMALL, *overrides)
    options = [f"--config.{setting}" for setting in settings]
    return ["--config", path, "--workdir", workdir, *options]


def assert_message(code, error):
    assert code == 2, error
    for word in ("expected:", "found:", "fix:"):
        assert word in error
    assert "Traceback" not in error
    assert error.split("fix:")[1].strip()


# Folders and files.


def test_a_missing_folder_names_the_nearest_one(refuse, tmp_path):
    (tmp_path / "data_2").mkdir()
    error = refuse("folder_segmentation")
    assert f"'{tmp_path / 'data'}' does not exist" in error
    assert f"--config.data.dir='{tmp_path / 'data_2'}'" in error


def test_wrong_input_is_not_taken_for_a_lost_process(refuse, monkeypatch, tmp_path):
    """With code 75 a scheduler would start it again for ever."""
    monkeypatch.setattr(hosts, "end_if_lost", lambda *_: pytest.fail("taken for lost"))
    error = refuse("folder_segmentation", folder=tmp_path / "crash_barriers")
    assert any(sign in error for sign in hosts.LOST)


# What the masks hold.


def test_a_palette_of_32_classes_is_no_file_name(refuse, tmp_path):
    """Checks are stored under the options; a long palette must not become a path."""
    pairs(tmp_path / "data", 4)
    palette = tuple(f"#{i:06x}" for i in range(40))
    error = refuse("folder_segmentation", f"data.palette={palette}")
    assert "only the colours of data.palette" in error
    assert "#ffffff 3.1 %" in error


# Formats of labelling tools.


def test_the_project_file_of_the_deep_learning_tool_as_data_dir(refuse, tmp_path):
    path = tmp_path / "project.dltp"
    path.write_bytes(b"closed")
    error = refuse("folder_segmentation", folder=path)
    assert "label images: one grey PNG per photo" in error


# What the split makes of it.


def test_a_split_file_with_a_photo_in_two_parts(refuse, tmp_path):
    root = pairs(tmp_path / "data")
    path = tmp_path / "mine.csv"
    parts = ["val", "train"] + ["val", "test", "test"] + ["train"] * 19
    names = sorted(p.stem for p in (root / "images").iterdir())
    rows = [f"{name},1,,{part}," for name, part in zip(names, parts, strict=True)]
    path.write_text("\n".join([",".join(COLUMNS), *rows]))
    error = refuse(
        "folder_segmentation",
        r"data.group_pattern=^(.+)_\d+$",
        f"data.split={path}",
    )
    assert "photo0" in error
    assert f"{path}: give each group one split" in error


def test_a_split_that_is_no_mode_and_no_file(refuse, tmp_path):
    pairs(tmp_path / "data")
    error = refuse("folder_segmentation", "data.split=groupd")
    assert "grouped, published, random, kfold" in error


def test_a_batch_larger_than_the_training_part(refuse, tmp_path):
    pairs(tmp_path / "data")
    error = refuse("folder_segmentation", "train.batch_size=32")
    assert "15 training image(s) and batches of 32" in error
    assert "--config.train.batch_size=8" in error  # what 8 devices can share


# What the config says.


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("data.image_size=(31,32)", '--config.data.image_size="(32, 32)"'),
        ("optim.learning_rate=nan", "optim.learning_rate: expected a finite number"),
        ("optim.learning_rate=-1.0", "optim.learning_rate: expected more than 0"),
        ("train.monitor=iou/krack/pooled", "one of loss, iou/crack/pooled"),
        ("model.bn_group=3", "--config.model.bn_group=1"),
        ("model.bn_group=-2", "config.model.bn_group"),
        ("model.dropout=(0.0,)", "config.model.dropout"),
        ("model.widths=(0,8)", "config.model.widths"),
        ("model.name=[]", "config.model.name is '[]'; choose from unet"),
        ("train.batch_size=7", "--config.train.batch_size=8"),
        ("seed=-1", "config.seed"),
        ("optim.parts={'stem': {'rate': 0.1, 'from_epoch': 0}}", "it has decoder_0"),
        ("optim.parts={'encoder': {'rate': -1.0, 'from_epoch': 0}}", "at least 0"),
        ("optim.parts={'encoder': 0.1}", "expected rate and from_epoch, found 0.1"),
        (
            "optim.parts={'encoder': {'rate': 0.1}}",
            "parts.encoder.from_epoch is missing",
        ),
        ("model.encoder_init=runs/none/model", "config.model.name=unet"),
        ("model.init=runs/none/model", "runs/none/model without model.safetensors"),
        ("data.split_seed=-1", "config.data.split_seed"),
        ("data.workers=-1", "config.data.workers"),
        ("data.num_folds=1", "config.data.num_folds"),
        ("data.fold=1", "config.data.fold=1 has no effect on config.data.split="),
        ("data.std=(0,0,0)", "config.data.std"),
        ("data.augment.hflip.p=2.0", "config.data.augment.hflip.p"),
        ("data.augment.hflip.q=0.5", "did you mean data.augment.hflip.p?"),
        ("data.augment={'hflp': {'p': 0.5}}", "no such augment; did you mean hflip?"),
        ("data.augment={'hflip': 0.5}", "hflip: expected a group of keys, found 0.5"),
        (
            "data.augment={'brightness': {'p': 0.5, 'shift': 30.0}}",
            "config.data.augment.brightness.shift: expected 0 to 1",
        ),
        ("data.augment={'rotate': {'p': 0.5}}", "augment.rotate.degrees is missing"),
        (
            "data.augment={'scale': {'p': 1, 'factor': (0.4, 1)}}",
            "config.data.augment.scale.factor: expected at least 0.5",
        ),
        (
            "data.augment={'crop': {'p': 1, 'share': (0.9, 0.5)}}",
            "config.data.augment.crop.share: expected the smaller number first",
        ),
        (
            "data.augment={'jpeg': {'p': 1, 'quality': (0, 50)}}",
            "config.data.augment.jpeg.quality: expected 1 to 100",
        ),
        ("task.name=joint", "config.task.mask_weight is missing"),
        ("task.name=instance", "choose from classification, segmentation, joint"),
    ],
)
def test_a_value_that_cannot_be(refuse, tmp_path, override, phrase):
    pairs(tmp_path / "data")
    assert phrase in refuse("folder_segmentation", override)


def test_a_plateau_factor_that_does_not_reduce(refuse, tmp_path):
    pairs(tmp_path / "data")
    plateau = dict(patience=1, min_delta=0.0, cooldown=0, min_learning_rate=0.0)
    error = refuse("folder_segmentation", f"optim.plateau={plateau | dict(factor=2.0)}")
    assert "config.optim.plateau.factor" in error


def test_transposes_of_oblong_images(refuse, tmp_path):
    pairs(tmp_path / "data")
    oblong = ("data.image_size=(32,64)", "data.augment={'transpose': {'p': 0.5}}")
    error = refuse("folder_segmentation", *oblong)
    assert "--config.data.augment.transpose.p=0" in error


def test_colours_of_grey_images(refuse, tmp_path):
    pairs(tmp_path / "data")
    color = dict(p=1.0, hue=10.0, saturation=(0.5, 1.5))
    grey = ("data.channels=1", "data.mean=(0.5,)", "data.std=(0.5,)")
    error = refuse("folder_segmentation", *grey, f"data.augment={dict(color=color)}")
    assert "images of three channels for color" in error
    assert "--config.data.augment.color.p=0" in error


def test_more_distortions_than_one(refuse, tmp_path):
    pairs(tmp_path / "data")
    both = dict(
        elastic=dict(p=0.4, alpha=120.0, sigma=6.0),
        grid=dict(p=0.8, steps=5, limit=0.3),
    )
    error = refuse("folder_segmentation", f"data.augment={both}")
    assert "elastic.p=0.4, grid.p=0.8" in error
    assert "--config.data.augment.grid.p=0.6" in error


def test_mixed_images_with_masks(refuse, tmp_path):
    pairs(tmp_path / "data")
    mixup = dict(mixup=dict(p=1.0, alpha=0.2))
    error = refuse("folder_segmentation", f"data.augment={mixup}")
    assert "config.task.name=classification for mixup; it mixes no masks" in error
    assert "--config.data.augment.mixup.p=0" in error


def check_arguments(folder, out, *overrides):
    arguments = command("folder_segmentation", folder, "", *overrides)
    del arguments[2:4]  # --workdir
    return [*map(str, arguments), "--out", str(out)]


def test_check_data_writes_a_page_and_no_run_folder(scripts, monkeypatch, tmp_path):
    pairs(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    arguments = check_arguments(tmp_path / "data", tmp_path / "seen")
    scripts["check_data"].run([*arguments, "--augmented", "2"])
    with Image.open(tmp_path / "seen" / "augmented_samples.png") as picture:
        assert picture.width > 6 * 256
    assert "Data check" in (tmp_path / "seen" / "check.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "seen"}


def test_data_are_prepared_ahead_and_old_ones_deleted(
    scripts, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pairs(tmp_path / "data")
    arguments = check_arguments(tmp_path / "data", "")[:-2]
    small = "--config.data.image_size=(8, 8)"
    scripts["prepare_data"].run([*arguments, small])
    (decoded,) = (tmp_path / "cache" / "jaxseg" / "decoded").glob("*/")
    assert (decoded / "image.npy").is_file()
    assert f"{decoded}, 0.00 GB, last opened 0 days ago" in capsys.readouterr().out
    month = 30 * 24 * 60 * 60
    os.utime(decoded, (time.time() - month,) * 2)
    scripts["prepare_data"].run([*arguments, "--delete-unused", "20"])
    said = capsys.readouterr().out
    assert f"deleted: {decoded}, 0.00 GB, last opened 30 days ago" in said
    (other,) = (tmp_path / "cache" / "jaxseg" / "decoded").glob("*/")
    assert other != decoded
    assert {path.name for path in tmp_path.iterdir()} == {"data", "cache"}


def test_check_data_keeps_a_problem_on_its_page(call, tmp_path):
    pairs(tmp_path / "data")
    write(tmp_path / "data" / "masks" / "photo0_0.png", stripe(0)[:20])
    arguments = check_arguments(tmp_path / "data", tmp_path / "seen")
    code, error = call("check_data", *arguments)
    assert_message(code, error)
    found = json.loads((tmp_path / "seen" / "check.json").read_text())["problem"]
    assert "photo0_0: image 32 x 32, mask 20 x 32" in found["found"]
    shown = html.unescape((tmp_path / "seen" / "check.html").read_text())
    assert found["fix"].partition("--config")[0] in shown


def test_check_data_without_a_place_to_write(call, tmp_path):
    pairs(tmp_path / "data")
    (tmp_path / "file").write_text("")
    arguments = check_arguments(tmp_path / "data", tmp_path / "file" / "seen")
    code, error = call("check_data", *arguments)
    assert_message(code, error)
    assert "--out DIR in another place" in error


def test_negatives_that_are_not_there_cannot_be_matched(refuse, tmp_path):
    pairs(tmp_path / "data")
    error = refuse("folder_segmentation", "data.sampling=matched")
    assert "none of them clean" in error
    assert "--config.data.sampling=shuffle" in error


JOINT = dict(
    name="joint", mask_weight=1.0, image_weight=1.0, threshold="max_f1", min_recall=0.9
)


@pytest.mark.parametrize("sampling", ["shuffle", "least_used"])
def test_a_decision_is_not_learned_from_defects_alone(refuse, tmp_path, sampling):
    pairs(tmp_path / "data")
    changes = (f"task={JOINT}", "model.image_head=True", f"data.sampling={sampling}")
    error = refuse("folder_segmentation", *changes)
    assert "config.task.name='joint'" in error
    assert "none of them clean" in error
    assert "--config.task.name=segmentation" in error


def test_masks_asked_of_class_folders(refuse, tmp_path):
    classes(tmp_path / "data", intact=12, cracked=12)
    error = refuse("folder_classification", "task.name=segmentation")
    assert "has image classes only" in error
    assert "--config.task.name=classification" in error


def test_windows_of_class_folders(refuse, tmp_path):
    classes(tmp_path / "data", intact=12, cracked=12)
    crop = "data.crop={'per_image':2,'foreground_share':0.5}"
    cache = tmp_path / "cache"
    error = refuse("folder_classification", crop, f"data.cache_dir={cache}")
    assert "has image classes only" in error
    assert "--config.data.crop=none" in error
    assert not cache.exists()  # no image was opened


def test_a_joint_task_needs_an_image_head(refuse, tmp_path):
    pairs(tmp_path / "data")
    error = refuse("folder_segmentation", f"task={JOINT}")
    assert "gives seg_logits" in error
    assert "image_head=True" in error


def test_all_mistakes_of_file_and_overrides_are_listed_at_once(refuse, tmp_path):
    error = refuse(
        "folder_segmentation",
        "optim.learning_rat=0.1",
        "train.epoch=3",
        "model.norm=bach",
        "data.channels=two",
        "loss.dise={'weight': 1.0}",
        "task.threshold",
    )
    for phrase in (
        "config.optim.learning_rat: there is no such key; did you mean "
        "optim.learning_rate?",
        "config.train.epoch: there is no such key; did you mean train.epochs?",
        "config.model.norm: expected",
        "found 'bach'",
        "config.data.channels: expected",
        "config.task.threshold: expected --config.task.threshold=value",
    ):
        assert phrase in error


def test_several_mistakes_in_the_config_file_are_listed_at_once(call, tmp_path):
    text = (ROOT / "configs" / "folder_segmentation.py").read_text()
    text = text.replace("batch_size=8", "batch_sise=8").replace("channels=3,", "")
    path, workdir = tmp_path / "mine.py", tmp_path / "run"
    path.write_text(text.replace("epochs=40", "epochs='many'"))
    code, error = call("train", "--config", path, "--workdir", workdir)
    assert_message(code, error)
    assert "4 problem(s)" in error
    for phrase in (
        "config.train.batch_sise: there is no such key; did you mean batch_size?",
        "config.train.batch_size is missing",
        "config.data.channels is missing",
        "config.train.epochs: expected int, found 'many'",
    ):
        assert phrase in error
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("name", "text", "phrase"),
    [
        ("missing.py", None, "no file"),
        ("broken.py", "def get_config(:\n", "SyntaxError"),
        ("import.py", "import no_such_package\n", "No module named"),
        ("other.py", "x = 1\n", "has no attribute 'get_config'"),
        ("dict.py", "def get_config():\n    return {}\n", "'to_dict'"),
        ("config.json", '{"config": {}}', "config.json is none"),
    ],
)
def test_a_config_file_that_is_none(call, tmp_path, name, text, phrase):
    path, workdir = tmp_path / name, tmp_path / "run"
    if text is not None:
        path.write_text(text)
    code, error = call("train", "--config", path, "--workdir", workdir)
    assert_message(code, error)
    assert phrase in error
    assert str(path) in error
    assert not workdir.exists()


# Folders for what is written.


def test_a_cache_folder_that_cannot_be(refuse, tmp_path):
    pairs(tmp_path / "data")
    (tmp_path / "file").touch()
    error = refuse("folder_segmentation", f"data.cache_dir={tmp_path / 'file'}")
    assert "--config.data.cache_dir=" in error


@pytest.fixture
def stopped_run(call, tmp_path, monkeypatch):
    """A run folder whose run was stopped before its first step."""

    def stop(built, workdir):
        raise loop.Interrupted("SIGTERM")

    monkeypatch.setattr(loop, "train", stop)
    root, workdir = pairs(tmp_path / "data"), tmp_path / "run"
    code, error = call("train", *command("folder_segmentation", root, workdir))
    assert code == 75, error
    return root, workdir


def tree_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_run_folder_of_another_config_or_other_data(call, stopped_run, tmp_path):
    root, workdir = stopped_run
    before = tree_of(workdir)
    assert before.keys() == {".lock", "config.json", "split.csv"}

    def again(*overrides, folder=root):
        options = command("folder_segmentation", folder, workdir, *overrides)
        return call("train", *options)

    code, error = again("optim.learning_rate=0.01", "train.epochs=2")
    assert_message(code, error)
    assert "config.optim.learning_rate: 0.001 there, 0.01 now" in error
    assert "config.train.epochs: 1 there, 2 now" in error
    assert "--restart" in error

    moved = tmp_path / "moved"
    root.rename(moved)
    assert tree_of(workdir) == before
    assert again(folder=moved)[0] == 75  # the same data elsewhere may go on
    before = tree_of(workdir)

    write(moved / "masks" / "photo1_3.png", stripe(9))
    code, error = again(folder=moved)
    assert_message(code, error)
    assert "data_hash: " in error

    for part in ("images", "masks"):
        (moved / part / "photo1_3.png").rename(moved / part / "new_3.png")
    code, error = again(folder=moved)
    assert_message(code, error)
    assert "only in the dataset: new_3; only in the file: photo1_3" in error
    assert tree_of(workdir) == before


def test_restart_archives_the_other_run(call, stopped_run):
    root, workdir = stopped_run
    before = tree_of(workdir)
    options = command("folder_segmentation", root, workdir, "seed=7")
    assert call("train", *options)[0] == 2
    assert call("train", *options, "--restart")[0] == 75
    assert signals.same_command() == "the same command without --restart"
    after = tree_of(workdir)
    for name in ("config.json", "split.csv"):
        assert after[f"001.archived/{name}"] == before[name]
    assert after["config.json"] != before["config.json"]


def test_a_folder_with_strangers(call, tmp_path):
    root, workdir = pairs(tmp_path / "data"), tmp_path / "home"
    write(workdir / "holiday.jpg", photo(0))
    before = tree_of(workdir)
    code, error = call("train", *command("folder_segmentation", root, workdir))
    assert_message(code, error)
    assert "holds holiday.jpg and no config.json" in error
    assert {**before, ".lock": b""} == tree_of(workdir)


@pytest.mark.parametrize("text", ['{"model_type": "bert"}', "not json", "[]"])
def test_the_config_json_of_another_program(call, tmp_path, text):
    root, workdir = pairs(tmp_path / "data"), tmp_path / "bert"
    workdir.mkdir()
    (workdir / "config.json").write_text(text)
    code, error = call("train", *command("folder_segmentation", root, workdir))
    assert_message(code, error)
    code, error = call("evaluate", "--workdir", workdir)
    assert_message(code, error)
    assert (workdir / "config.json").read_text() == text


def test_a_run_folder_that_is_a_file(call, tmp_path):
    root = pairs(tmp_path / "data")
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        code, error = call("train", *command("folder_segmentation", root, workdir))
        assert_message(code, error)


def test_evaluate_wants_a_run_with_a_finished_epoch(call, stopped_run, tmp_path):
    code, error = call("evaluate", "--workdir", tmp_path / "no_run")
    assert_message(code, error)
    assert "the folder of a run" in error
    assert not (tmp_path / "no_run").exists()
    _, workdir = stopped_run
    code, error = call("evaluate", "--workdir", workdir)
    assert_message(code, error)
    assert "a finished epoch" in error
    code, error = call("evaluate", "--workdir", workdir, "--config.train.epoch=3")
    assert_message(code, error)
    assert "did you mean train.epochs?" in error


def test_a_disk_that_fills_up_while_a_run_is_judged(call, stopped_run, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run, "build_experiment", write)
    code, error = call("evaluate", "--workdir", stopped_run[1])
    assert_message(code, error)
    assert f"room to write in {stopped_run[1]}" in error


# Skipping, and processes of their own.


def test_skipped_images_are_listed_in_the_run_folder(call, tmp_path, monkeypatch):
    def stop(built, workdir):
        raise loop.Interrupted("SIGTERM")

    monkeypatch.setattr(loop, "train", stop)
    root, workdir = pairs(tmp_path / "data"), tmp_path / "run"
    halve(root / "images" / "photo1_3.png")
    options = command("folder_segmentation", root, workdir, "data.on_corrupt=skip")
    assert call("train", *options)[0] == 75
    with (workdir / "skipped.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == "photo1_3"
    assert f"{root / 'images' / 'photo1_3.png'} is cut short" in row["reason"]
    assert len((workdir / "split.csv").read_text().splitlines()) == 1 + 23


def test_building_an_experiment_leaves_broken_images_out(scripts, tmp_path):
    root = pairs(tmp_path / "data")
    halve(root / "masks" / "photo1_3.png")
    path = ROOT / "configs" / "folder_segmentation.py"
    overrides = [f"data.dir={root}", *SEGMENTATION, *SMALL, "data.on_corrupt=skip"]
    run = scripts["command_line"].load_config(path, overrides, experiment.SCHEMAS)
    assert isinstance(run, config.Run)
    built = experiment.build_experiment(run)
    assert [name for name, _ in built.dataset.skipped] == ["photo1_3"]
    assert "photo1_3" not in built.dataset.ids
    assert len(built.dataset.ids) == len(built.split.parts) == 23


def launch(*arguments):
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    script = [sys.executable, str(ROOT / "scripts" / "train.py")]
    return subprocess.run(
        [*script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def test_two_processes_on_one_run_folder(tmp_path):
    root, workdir = pairs(tmp_path / "data", 4), tmp_path / "run"
    with files.exclusive(workdir / ".lock", wait=False):
        done = launch(*command("folder_segmentation", root, workdir))
    assert_message(done.returncode, done.stderr)
    assert "another process is working in it" in done.stderr
    assert [path.name for path in workdir.iterdir()] == [".lock"]


def test_a_process_of_its_own_ends_with_2_and_a_message(tmp_path):
    options = command("folder_segmentation", tmp_path / "data", tmp_path / "run")
    done = launch(*options)
    assert_message(done.returncode, done.stderr)
    assert "does not exist" in done.stderr
    assert not (tmp_path / "run").exists()
