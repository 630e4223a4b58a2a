"""The pairing protocol, the report, and a PyTorch twin that is the same network."""

import importlib.util
import itertools
import json
import re
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import benchmark  # noqa: E402
import benchmark_forecast  # noqa: E402
import benchmark_ops  # noqa: E402
import benchmark_options  # noqa: E402
import benchmark_pairs  # noqa: E402
import benchmark_plan  # noqa: E402
import benchmark_report  # noqa: E402
import benchmark_scale  # noqa: E402
import benchmark_step  # noqa: E402
import benchmark_suite  # noqa: E402
import benchmark_twin  # noqa: E402
import command_line  # noqa: E402

from jaxseg import memory  # noqa: E402
from jaxseg.errors import InputError  # noqa: E402
from jaxseg.vocabulary import SCHEMAS  # noqa: E402

CONFIGS = Path(__file__).parents[1] / "configs"


def config(name, *overrides):
    return command_line.load_config(CONFIGS / f"{name}.py", overrides, SCHEMAS)


@pytest.fixture(scope="module")
def tiny():
    """(batch, weights, losses) of a tiny U-Net of two levels."""
    pytest.importorskip("torch")  # compiles for nothing where there is none
    run = config(
        "folder_segmentation",
        "model.widths=(4, 6)",
        "model.dropout=(0.0, 0.0)",
        "data.image_size=(8, 8)",
        "train.precision=float32",
    )
    program = benchmark_step.make_program(run, {})
    batch = benchmark_step.make_batch(program)
    ours = benchmark_step.Ours(program, batch)
    weights = benchmark_twin.port_weights("unet", ours.weights())
    return batch, weights, ours.trace(3)


@pytest.fixture
def torch_twin():
    twin = pytest.importorskip("torch_twin", reason="torch is not installed")
    twin.torch.set_num_threads(1)  # spinning threads fight with those of XLA
    return twin


def record(**changes):
    machine = {
        "cpu": "Abacus",
        "cores": 2,
        "device": "cpu",
        "others": 0.25,
        "flags": "--xla_on=true",
        "versions": {"jax": "0.12.0", "torch": "2.13.0"},
    }
    result = {
        "kind": "step",
        "command": "step --model unet",
        "machine": machine,
        "what": "unet, 7 parameters",
        "images": 8,
        "seconds": {"jaxseg float32": 0.5, "PyTorch float32": 0.25},
        "ratios": {"PyTorch float32": [0.5, 0.4, 0.6]},
        "blocks": {"jaxseg float32": [0.5, 0.6, 0.4], "PyTorch float32": [0.25] * 3},
    }
    return result | changes


def test_the_interval_is_that_of_all_resamples_of_seven_pairs():
    ratios = [1.1, 0.7, 2.0, 1.3, 0.9, 1.6, 1.2]
    resamples = np.array(list(itertools.product(ratios, repeat=7)))  # all 7^7
    medians = np.median(resamples, axis=1)
    expected = np.median(ratios), *np.percentile(medians, [2.5, 97.5])
    np.testing.assert_allclose(benchmark_pairs.bootstrap_interval(ratios), expected)


def test_contestants_take_turns_a_b_b_a_in_blocks_of_a_second_or_three_steps():
    ran = []

    def contestant(name, seconds):
        def run(steps):
            ran.append((name, steps))
            return seconds * steps

        return run

    contestants = {"a": contestant("a", 0.25), "b": contestant("b", 2.0)}
    blocks = benchmark_pairs.measure(contestants, turns=4)
    in_turns = ran[4:]  # after two warm-up calls of each
    uncounted, counted = in_turns[::2], in_turns[1::2]
    assert "".join(name for name, _ in counted) == "abbaabba"
    assert set(counted) == {("a", 4), ("b", 3)}
    assert uncounted == [(name, 1) for name, _ in counted]
    assert blocks == {"a": [0.25] * 4, "b": [2.0] * 4}


def test_a_ratio_above_one_says_that_the_first_contestant_is_faster():
    summary = benchmark_pairs.summarize(
        {"ours": [1.0, 2.0, 1.0], "other": [3.0, 6.0, 3.0]}
    )
    assert summary["seconds"] == {"ours": 1.0, "other": 3.0}
    np.testing.assert_allclose(summary["ratios"]["other"], [3.0, 3.0, 3.0])


def test_the_report_holds_the_last_measurement_of_every_command(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    old = record(seconds={"jaxseg float32": 9.0})
    lines = [json.dumps(entry) for entry in (old, record())]
    (tmp_path / "benchmarks" / "cpu.json").write_text("\n".join(lines) + "\n")
    benchmark_report.write_report(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| jaxseg float32 | 0.5000 | 16.0 |  |" in page
    assert "| PyTorch float32 | 0.2500 | 32.0 | 0.50x (0.40 to 0.60) |" in page
    for fact in (
        "Abacus, cores: 2",
        "3 blocks of each",
        "jax 0.12.0",
        "torch 2.13.0",
        "--xla_on=true",
    ):
        assert fact in page
    assert "9.0000" not in page
    assert "## step" in page
    assert "## input" not in page


def test_the_report_begins_with_the_steps_against_pytorch():
    slow, fast = "PyTorch float32", "PyTorch bfloat16 autocast"
    seconds = {"jaxseg float32": 3.0, slow: 4.0, fast: 2.0, f"{fast} again": 2.5}
    ratios = {slow: [1.3, 1.2, 1.4], fast: [0.7, 0.6, 0.8], f"{fast} again": [9, 9, 9]}
    files = {"jaxseg, from files": 1.0, "jaxseg bfloat16": 1.0, slow: 4.0}
    page = benchmark_report.make_report(
        [
            record(seconds=seconds, ratios=ratios),
            record(command="files", seconds=files, ratios={slow: [4.0, 3.0, 5.0]}),
            record(command="alone", seconds={"jaxseg float32": 1.0}, ratios={}),
            record(command="augment", kind="augment", seconds={"none": 1.0}, ratios={}),
        ]
    )
    table = page[page.index("| a step of") : page.index("### ")].strip().splitlines()
    where = "unet, 7 parameters | {} | 2 core(s), jax 0.12.0"
    assert table[2:] == [
        f"| {where.format('jaxseg float32')} "
        "| 1.30x (1.20 to 1.40) | 0.70x (0.60 to 0.80) |",
        f"| {where.format('jaxseg, from files, bfloat16')} |  | 4.00x (3.00 to 5.00) |",
    ]


def test_the_report_keeps_the_devices_of_a_machine_apart():
    machine = {"cpu": "x", "cores": 16, "others": 0, "flags": "", "versions": {}}
    machine["driver"] = "580.1, 1980 MHz, 1980 MHz, 700.00 W"
    record = {"kind": "step", "command": "step", "what": "w", "images": 1, "ratios": {}}
    devices = {"cpu": 4.0, "NVIDIA H200": 0.5}
    page = benchmark_report.make_report(
        [
            record
            | {"seconds": {"jaxseg": seconds}, "operations": 1e12}
            | {"machine": machine | {"device": name}}
            for name, seconds in devices.items()
        ]
    )
    assert "; x, cores: 16;" in page
    gpu = "NVIDIA H200 (580.1, 1980 MHz, 1980 MHz, 700.00 W)"
    assert f"; {gpu}; x, cores: 16;" in page
    assert "0.250 TFLOP/s; an H200 would" in page  # nothing is known of this CPU
    assert "2.000 TFLOP/s; 0% of the peak in bfloat16;" in page


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"measurements, \*\.json"):
        benchmark_report.write_report(tmp_path)


@pytest.mark.parametrize(
    "theirs", [[1.001, 0.5], [1.0, 0.51], [1.0, float("nan")]], ids=str
)
def test_another_network_is_not_timed(theirs):
    with pytest.raises(InputError, match="losses of the same network"):
        benchmark_step.compare_losses([1.0, 0.5], theirs)


def test_a_python_without_torch_is_refused():
    with (
        pytest.raises(InputError, match="a Python with torch, numpy and Pillow"),
        benchmark_twin.open_twin("/nowhere/python", "unet", {}, {}, compiled=False),
    ):
        pass


def test_a_recorded_command_has_no_path_of_this_machine():
    words = ["step", "--config", "configs/sdnet.py", "--json", "/tmp/x.json"]
    words += ["--torch-python", "/opt/python"]
    options = benchmark_options.make_parser("").parse_args(words)
    options.overrides = ["data.dir=/home/x", "seed=1", "data.cache_dir=/tmp/x"]
    assert benchmark.settings(options) == ["--config configs/sdnet.py", "seed=1"]
    options = benchmark_options.make_parser("").parse_args([*words, "--compiled"])
    options.overrides = []
    wanted = ["--config configs/sdnet.py", "--compiled"]
    assert benchmark.settings(options) == wanted


def test_the_unet_of_the_twin_learns_as_ours_does(tiny, torch_twin):
    batch, weights, losses = tiny
    theirs = torch_twin.trace_losses("unet", weights, batch, 3)
    np.testing.assert_allclose(losses, theirs, rtol=1e-3)
    assert theirs[2] < theirs[0]


def test_a_weight_without_a_partner_is_refused(tiny, torch_twin):
    _, weights, _ = tiny
    name = "mask_head.Conv_0.bias"
    fewer = {key: weight for key, weight in weights.items() if key != name}
    with pytest.raises(ValueError, match=r"one side only: mask_head\.Conv_0\.bias"):
        torch_twin.build_network("unet", fewer)


def test_the_child_process_answers_as_the_twin_in_this_process(
    tiny, torch_twin, monkeypatch
):
    batch, weights, _ = tiny
    expected = torch_twin.trace_losses("unet", weights, batch, 2)
    opened = benchmark_twin.open_twin(
        sys.executable, "unet", weights, batch, compiled=False
    )
    with opened as twin:
        np.testing.assert_allclose(twin.trace(2), expected, rtol=1e-3)
        assert all(twin.run(rung, 1) > 0 for rung in twin.rungs)
        answers = {"float32 channels_last": {"seconds": 1.0}, "other": {"error": "no"}}
        twin.rungs = list(answers)
        monkeypatch.setattr(twin, "_ask", lambda request: answers[request["rung"]])
        twin.leave_out_failing()
        assert twin.rungs == ["float32 channels_last"]
        assert twin.left_out == {"other": "no"}


def test_a_form_that_fails_says_why_in_one_line(tiny, torch_twin):
    batch, weights, _ = tiny
    rung = torch_twin.Rung("bfloat16 autocast", graph=True)  # and there is no GPU
    step = torch_twin.Step("unet", weights, batch, rung, "cpu", hflip=0.0)
    error = torch_twin.try_to_run(step, 1)["error"]
    assert ": " in error
    assert "\n" not in error


def test_a_gpu_gets_the_ladder_from_plain_float32_to_one_graph(torch_twin):
    plain = [str(rung) for rung in torch_twin.offered_rungs("cuda", compiled=False)]
    half = "bfloat16 autocast channels_last"
    assert plain == ["float32", "TF32", half, f"{half}, CUDA graph"]
    rungs = [str(rung) for rung in torch_twin.offered_rungs("cuda", compiled=True)]
    assert len(set(rungs)) == len(rungs) == 7
    assert {f"{half}, compiled", f"{half}, compiled reduce-overhead"} < set(rungs)
    assert rungs[-1] == f"{half}, compiled max-autotune-no-cudagraphs, CUDA graph"


@pytest.mark.parametrize(
    "model", ["unet", "segdecnet", "smp resnet18", "smp efficientnet-b0"]
)
def test_pytorch_compiles_the_whole_network(tiny, torch_twin, model):
    """Where dynamo splits a network up, 'compiled' would time the eager rest too."""
    torch = torch_twin.torch
    if " " in model and not importlib.util.find_spec("segmentation_models_pytorch"):
        pytest.skip("segmentation_models_pytorch is not installed")
    network = torch_twin.make_network(model, tiny[1])
    image = torch.zeros(2, 3, 128, 128)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert jax.tree.map(np.shape, compiled(image)) == jax.tree.map(
        np.shape, network(image)
    )


def test_channels_may_come_first_in_the_same_step(tiny, torch_twin):
    batch, weights, losses = tiny
    rung = torch_twin.Rung("TF32", channels_last=False)
    step = torch_twin.Step("unet", weights, batch, rung, "cpu", hflip=0.0)
    assert step.run(1) > 0
    assert step().item() == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("platform", "count", "found"), [("tpu", 1, "1 of"), ("gpu", 2, "2 of")]
)
def test_where_the_twin_cannot_follow_is_refused(monkeypatch, platform, count, found):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "device_count", lambda: count)
    with (
        pytest.raises(InputError, match=rf"(?s)one GPU, or a CPU, .*{found}"),
        benchmark_twin.open_twin(sys.executable, "unet", {}, {}, compiled=False),
    ):
        pass


@pytest.mark.parametrize("case", benchmark_suite.CASES, ids=" ".join)
def test_every_step_of_the_suite_has_a_twin(case):
    words = benchmark_suite.command_of(case, ["--pairs", "3"])[2:]
    plain, overrides = command_line.split_overrides(words)
    options = benchmark_options.make_parser("").parse_args(plain)
    options.overrides = overrides
    assert (options.kind, options.pairs, options.against) == ("step", 3, "torch")
    assert benchmark_twin.twin_of(benchmark.read_config(options))


def test_a_suite_counts_what_failed_and_says_where_to_go_on(monkeypatch, capsys):
    codes = iter([0, 2, 0, None])  # None: the time was over
    ran = []

    def run(seconds, command):
        ran.append(command)
        return next(codes)

    monkeypatch.setattr(benchmark_suite, "run_for", run)
    assert benchmark_suite.run_suite(3, ["--pairs", "3"], seconds=60) == 1
    cases = benchmark_suite.CASES[2:6]
    assert ran == [benchmark_suite.command_of(case, ["--pairs", "3"]) for case in cases]
    said = capsys.readouterr().out
    assert "the rest: --first 6" in said
    assert "2 measured, 1 failed" in said


def test_what_takes_too_long_is_ended_with_its_children(tmp_path):
    assert benchmark_suite.run_for(60, [sys.executable, "-c", "exit(3)"]) == 3
    command = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    assert benchmark_suite.run_for(3, ["/bin/sh", "-c", command]) is None
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("name", "overrides", "twin"),
    [
        ("sdnet", (), "torchvision resnet18"),
        ("sdnet", ("model.encoder=efficientnet_b0",), "timm efficientnet_b0"),
        ("speedlines", (), "smp resnet34"),
        (
            "speedlines_b0",
            ("model.encoder=smp_efficientnet_b0", "model.skips=blocks"),
            "smp efficientnet-b0",
        ),
        ("crack_segmentation", ("train.batch_size=8",), "segdecnet"),
    ],
)
def test_the_weights_of_a_config_have_partners_in_the_library(
    name, overrides, twin, torch_twin
):
    """Names, shapes and number; test_pretrained.py has the outputs."""
    if twin != "segdecnet" and not importlib.util.find_spec("timm"):
        pytest.skip("the extra parity is not installed")
    run = config(name, *overrides)
    assert benchmark_twin.twin_of(run) == twin
    params = jax.eval_shape(benchmark_step.make_program(run, {}).init).params
    weights = {
        path: np.zeros(leaf.shape, np.float32)
        for path, leaf in flatten_dict(params, sep="/").items()
    }
    ported = benchmark_twin.port_weights(twin, weights)
    network = torch_twin.build_network(twin, ported)
    theirs = dict(network.named_parameters())
    assert all(not theirs[name].any() for name in ported)  # loaded: all are 0
    assert len(ported) == len(weights)


@pytest.mark.parametrize("name", ["coffee_leaf", "speedlines_b0", "sdnet_small"])
def test_a_network_that_pytorch_has_not_is_refused(name):
    with pytest.raises(InputError, match="a network that PyTorch has too"):
        benchmark_twin.twin_of(config(name))


@pytest.mark.parametrize("name", ["dagm2007", "severstal"])
def test_grey_images_are_not_for_the_twin(name):
    with pytest.raises(InputError, match="images of three colours") as error:
        benchmark_twin.twin_of(config(name))
    assert error.value.found.startswith("1 channel(s)")


def multiplications(height, width, channels, features, taps):
    """Of a convolution; those with the padding are not done."""
    padded = (taps - 1) // 2 * ((taps - 1) // 2 + 1)
    places = (taps * height - padded) * (taps * width - padded)
    return channels * features * places


def test_the_operations_of_a_step_are_those_of_its_convolutions():
    """SegDecNet at 640x232: twice for the value, four times for the gradients.

    The first layer needs no gradient for the image, nor the decision one for the map.
    """
    first = multiplications(640, 232, 3, 32, 5)
    volume = [multiplications(320, 116, c, 64, 5) for c in (32, 64, 64)]
    volume += 4 * [multiplications(160, 58, 64, 64, 5)]
    volume += [multiplications(80, 29, 64, 1024, 15), 80 * 29 * 1024]
    decision = multiplications(40, 14, 1025, 8, 5)
    rest = multiplications(20, 7, 8, 16, 5) + multiplications(10, 3, 16, 32, 5)
    expected = 4 * first + 6 * sum(volume) + 4 * decision + 6 * rest
    run = config("crack_segmentation", "train.batch_size=8")
    found = benchmark_step.count_operations(run) / 8
    assert found == pytest.approx(expected, rel=0.005)  # beside norms and losses


def mirrors(program):
    """Whether images are turned around; gradients turn kernels, which are floats."""
    return bool(re.search(r"reverse .*xui8>", program.lower().as_text()))


def test_images_are_mirrored_but_for_targets_made_beforehand():
    """PyTorch's side does the same: `Step` flips none with a `seg_target`."""
    unet = config("folder_segmentation", "data.image_size=(32, 32)")
    sizes = ("data.image_size=(128, 64)", "train.batch_size=8")
    segdecnet = config("crack_segmentation", *sizes)
    assert mirrors(benchmark_step.make_program(unet))
    assert not mirrors(benchmark_step.make_program(unet, {}))
    assert not mirrors(benchmark_step.make_program(segdecnet))


@pytest.mark.parametrize("name", ["crack_segmentation", "severstal"])
def test_what_cannot_be_turned_is_not_augmented(name):
    with pytest.raises(InputError, match="square images"):
        benchmark.main(["augment", "--config", f"{CONFIGS}/{name}.py"])


def test_a_plan_for_other_devices_is_not_measured_here():
    words = ["--config", f"{CONFIGS}/quickstart.py", "--memory", "1"]
    with pytest.raises(InputError, match="--measure alone"):
        benchmark.main(["plan", *words, "--device", "v5e:2x2", "--measure"])


def test_a_step_is_timed_printed_and_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_pairs, "BLOCK_SECONDS", 0.0)
    words = ["--config", str(CONFIGS / "folder_segmentation.py"), "--pairs", "2"]
    changes = ["model.widths=(4, 6)", "model.dropout=(0.0, 0.0)", "train.batch_size=8"]
    changes += ["data.image_size=(8, 8)", "train.steps_per_call=2"]
    changes += ["train.precision=float32", "data.dir=/somewhere"]
    has_torch = importlib.util.find_spec("torch") is not None
    words += ["--against", "torch"] if has_torch else []
    file = tmp_path / "new" / "cpu.json"
    benchmark.main(
        ["step", *words, "--json", str(file), *(f"--config.{c}" for c in changes)]
    )
    (made,) = map(json.loads, file.read_text().splitlines())
    ours = ["jaxseg float32, 2 steps a call", "jaxseg float32"]
    assert list(made["seconds"])[:2] == ours
    assert ("PyTorch float32 channels_last" in made["seconds"]) == has_torch
    assert {len(blocks) for blocks in made["blocks"].values()} == {2}
    assert made["images"] == 8
    assert made["operations"] > 0
    assert "/somewhere" not in made["command"]
    assert "jaxseg float32, 2" in capsys.readouterr().out
    assert "| jaxseg float32 |" in benchmark_report.make_report([made])


def test_chance_is_taken_out_of_a_config():
    b0 = benchmark_twin.without_chance(config("speedlines_b0")).model.network.kwargs
    road = benchmark_twin.without_chance(config("road")).model.network.kwargs
    assert b0["drop_path"] == 0
    assert not any(road["dropout"])


def test_a_plan_extends_a_straight_line_to_the_memory_of_a_device(monkeypatch):
    """12 MB and 3 MB an image, on 8 devices; by hand."""

    def need_of(run, mesh):
        share = run.train.batch_size / mesh.size / run.train.accumulate
        return memory.Need(int(10e6), int(2e6), int(share * 3e6))

    monkeypatch.setattr(benchmark_plan, "need_of", need_of)
    run = config("quickstart", "train.batch_size=16")
    rows = benchmark_plan.plan(run, benchmark_plan.open_mesh("", 16), int(100e6))
    plain, accumulated = rows["as it is"], rows["train.accumulate=2"]
    assert plain["gigabytes"] == pytest.approx(0.018)
    assert plain["megabytes_per_image"] == pytest.approx(3)
    assert plain["largest_batch"] == 8 * 29  # (100 - 12) / 3 = 29.3 on each
    assert accumulated["largest_batch"] == 8 * 58
    alone = config("quickstart", "train.batch_size=8")  # one for each device
    rows = benchmark_plan.plan(alone, benchmark_plan.open_mesh("", 8), int(100e6))
    assert "as it is" in rows
    assert "train.accumulate=2" not in rows


def test_tpus_without_libtpu_are_refused():
    with pytest.raises(InputError, match="pip install libtpu"):
        benchmark_plan.open_mesh("v99:2x2", 8)


def test_many_devices_by_hand(monkeypatch):
    """A step of 1 ms at 40 % of the peak; a sum of 0.5 ms at 150 GB/s."""
    run = config("quickstart")
    monkeypatch.setattr(benchmark_step, "count_operations", lambda _: 0.4 * 989e9)
    monkeypatch.setattr(benchmark_scale, "count_parameters", lambda _: 150e9 / 8000)
    rows = benchmark_scale.predict(run)
    near, far = rows["8 x H200"], rows["64 x H200"]
    assert near == pytest.approx(dict(step=1e-3, sum=5e-4, exposed=2 / 3, hidden=1))
    slow = 5e-4 * 150 / 40
    assert far == pytest.approx(
        dict(step=1e-3, sum=slow, exposed=1 / 2.875, hidden=1 / 1.875)
    )
    entry = record(kind="scale", devices=rows)
    row = benchmark_report.make_table(entry)[2]
    assert row == ("64 x H200", "1.00", "1.88", "35%", "53%")


def test_a_forecast_by_hand():
    """1,000 images: 650 to train on, 150 to validate, 200 to test."""
    run = config("sdnet", "train.epochs=10", "train.batch_size=10")
    seconds = {"check": 0.016, "copy": 0.001, "decode": 0.032}
    operations = 10 * 1e-3 * 0.4 * 989e12  # of 10 images: 1 ms each
    parts = benchmark_forecast.assemble(run, 1000, seconds, operations)
    assert {name: part for name, (part, _) in parts.items()} == pytest.approx(
        {
            "check the files": 1.0,
            "copy them into records": 1.0,
            "decode them": 2.0,
            "upload": 650 * 256 * 256 * 3 / 25e9,
            "10 epochs": 10 * (0.650 + 0.050),
            "test": 0.350 / 3,
            "all": 11 + 0.350 / 3 + 650 * 256 * 256 * 3 / 25e9,
        }
    )
    entry = record(kind="forecast", parts=parts)
    assert ("10 epochs", "7.0", "predicted, 0.70 s each, 1,000 images/s") in (
        benchmark_report.make_table(entry)
    )


def test_files_are_measured_by_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_forecast, "PHOTOS", 2)
    monkeypatch.setattr(benchmark_forecast, "COPIES", 2)
    started = time.perf_counter()
    laps = benchmark_forecast.measure_files(tmp_path, (32, 32), 3)
    assert set(laps) == {"check", "copy", "decode"}
    num_images = len([*tmp_path.glob("images/*/*.jpg")])
    whole = time.perf_counter() - started
    assert num_images * sum(laps.values()) <= whole
    assert min(laps.values()) > 0


def test_the_parameters_of_a_step_are_those_of_the_network():
    assert benchmark_scale.count_parameters(config("sdnet")) == 11_177_025


def test_a_plan_in_the_report(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    lever = {"gigabytes": 1.25, "megabytes_per_image": 60.5, "largest_batch": 1234}
    entry = record(kind="plan", levers={"as it is": lever}, memory=24.0)
    entry |= {"compiled_for": "v5e:2x2", "predicted": 1.2, "measured": 1.25}
    del entry["blocks"]
    (tmp_path / "benchmarks" / "cpu.json").write_text(json.dumps(entry) + "\n")
    benchmark_report.write_report(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| as it is | 1.25 | 60.5 | 1,234 |" in page
    assert "compiled for v5e:2x2, of which each has 24.0 GB" in page
    assert "adds 1.20 GB by the plan and 1.25 GB when it is run" in page


@pytest.mark.parametrize(
    "name",
    [
        "3x3 stride 2, 64 to 128, 32x32",
        "7x7 stride 2, 3 to 64, 128x128",
        "1x1, 96 to 24, 32x32",
        "depthwise 5x5 stride 2, 144, 32x32",
        "max-pool 2x2, 32, 128x128",
        "max-pool 3x3 stride 2, 64, 64x64",
        "transposed 2x2, 128 to 64, 32x32",
        "nearest x2, 64, 64x64",
    ],
)
def test_both_forms_of_an_operation_compute_the_same(name):
    case = benchmark_ops.make_cases()[name]
    shapes = [(2, *case.image)] + ([case.kernel] if case.kernel else [])
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    forms = (case.ours, case.plain)
    ours, plain = (benchmark_ops.with_gradients(form, *inputs) for form in forms)
    assert len(ours) == len(inputs) + 1
    for a, b in zip(ours, plain, strict=True):
        scale = float(np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)


def test_the_table_of_operations():
    row = benchmark_pairs.summarize(
        {"jaxseg": [0.002, 0.001], "plain form": [0.004, 0.002]}
    )
    record = {"kind": "ops", "rows": {"3x3": row}}
    _, line = benchmark_report.make_table(record)
    assert line == ("3x3", "1.50", "3.00", "2.00x (2.00 to 2.00)")
