"""The pairing protocol, the report, and a PyTorch twin that is the same network."""

import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import benchmark  # noqa: E402
import benchmark_step  # noqa: E402

from jaxseg.errors import InputError  # noqa: E402
from jaxseg.models import MODELS  # noqa: E402


@pytest.fixture(scope="module")
def tiny():
    """(model, batch, weights, losses) of a tiny U-Net of two levels."""
    pytest.importorskip("torch")  # compiles for nothing where there is none
    options = benchmark_step.UNET | dict(widths=(4, 6), dropout=(0.0, 0.0))
    with pytest.MonkeyPatch.context() as patch:
        network = ("unet", options, "segmentation")
        patch.setitem(benchmark_step.NETWORKS, "unet", network)
        batch = benchmark_step.make_batch(8, 8)
        ours = benchmark_step.Ours("unet", batch, "float32", {})
    weights = ours.weights()
    return "unet", batch, weights, ours.trace(3)


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
    np.testing.assert_allclose(benchmark.bootstrap_interval(ratios), expected)


def test_contestants_take_turns_a_b_b_a_in_blocks_of_a_second_or_three_steps():
    ran = []

    def contestant(name, seconds):
        def run(steps):
            ran.append((name, steps))
            return seconds * steps

        return run

    contestants = {"a": contestant("a", 0.25), "b": contestant("b", 2.0)}
    blocks = benchmark.measure(contestants, turns=4)
    in_turns = ran[4:]  # after two warm-up calls of each
    assert "".join(name for name, _ in in_turns) == "abbaabba"
    assert set(in_turns) == {("a", 4), ("b", 3)}
    assert blocks == {"a": [0.25] * 4, "b": [2.0] * 4}


def test_a_ratio_above_one_says_that_the_first_contestant_is_faster():
    summary = benchmark.summarize({"ours": [1.0, 2.0, 1.0], "other": [3.0, 6.0, 3.0]})
    assert summary["seconds"] == {"ours": 1.0, "other": 3.0}
    np.testing.assert_allclose(summary["ratios"]["other"], [3.0, 3.0, 3.0])


def test_the_report_holds_the_last_measurement_of_every_command(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    old = record(seconds={"jaxseg float32": 9.0})
    lines = [json.dumps(entry) for entry in (old, record())]
    (tmp_path / "benchmarks" / "cpu.json").write_text("\n".join(lines) + "\n")
    benchmark.write_report(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| jaxseg float32 | 0.5000 | 16 |  |" in page
    assert "| PyTorch float32 | 0.2500 | 32 | 0.50x (0.40 to 0.60) |" in page
    for fact in (
        "Abacus, 2 cores",
        "3 blocks of each",
        "jax 0.12.0",
        "torch 2.13.0",
        "--xla_on=true",
    ):
        assert fact in page
    assert "9.0000" not in page
    assert "## step" in page
    assert "## input" not in page


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"measurements, \*\.json"):
        benchmark.write_report(tmp_path)


@pytest.mark.parametrize(
    "theirs", [[1.001, 0.5], [1.0, 0.51], [1.0, float("nan")]], ids=str
)
def test_another_network_is_not_timed(theirs):
    with pytest.raises(InputError, match="losses of the same network"):
        benchmark_step.compare_losses([1.0, 0.5], theirs)


def test_a_python_without_torch_is_refused():
    with (
        pytest.raises(InputError, match="a Python with torch and numpy"),
        benchmark_step.open_twin("/nowhere/python", "unet", {}, {}),
    ):
        pass


def test_a_recorded_command_has_no_path_of_this_machine():
    words = ["step", "--json", "/tmp/x.json", "--torch-python", "/opt/python"]
    options = benchmark.make_parser().parse_args(words)
    assert not [text for text in benchmark.settings(options) if "/" in text]


def test_the_unet_of_the_twin_learns_as_ours_does(tiny, torch_twin):
    model, batch, weights, losses = tiny
    theirs = torch_twin.trace_losses(model, weights, batch, 3)
    np.testing.assert_allclose(losses, theirs, rtol=1e-3)
    assert theirs[2] < theirs[0]


def test_a_weight_without_a_partner_is_refused(tiny, torch_twin):
    model, _, weights, _ = tiny
    name = "mask_head/Conv_0/bias"
    fewer = {key: weight for key, weight in weights.items() if key != name}
    with pytest.raises(ValueError, match=r"one side only: mask_head\.Conv_0\.bias"):
        torch_twin.build_network(model, fewer)


def test_the_child_process_answers_as_the_twin_in_this_process(tiny, torch_twin):
    model, batch, weights, _ = tiny
    expected = torch_twin.trace_losses(model, weights, batch, 2)
    with benchmark_step.open_twin(sys.executable, model, weights, batch) as twin:
        np.testing.assert_allclose(twin.trace(2), expected, rtol=1e-3)
        assert all(twin.run(rung, 1) > 0 for rung in twin.rungs)


def test_the_resnet_of_the_twin_has_the_weights_and_logits_of_ours(torch_twin):
    network = MODELS["classifier"](1, jnp.float32, **benchmark_step.RESNET18)
    generator = np.random.default_rng(0)
    image = generator.normal(size=(2, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
    weights = {
        name: generator.normal(scale=0.05, size=leaf.shape).astype(np.float32)
        for name, leaf in flatten_dict(shapes["params"], sep="/").items()
    }
    statistics = jax.tree.map_with_path(
        lambda path, leaf: np.full(leaf.shape, path[-1].key == "var", np.float32),
        shapes["batch_stats"],
    )
    variables = {
        "params": unflatten_dict(weights, sep="/"),
        "batch_stats": statistics,
    }
    logits = jax.jit(lambda x: network.apply(variables, x, train=False))(image)
    twin = torch_twin.build_network("resnet18", weights).eval()
    with torch_twin.torch.no_grad():
        theirs = twin(torch_twin.torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(theirs.numpy(), logits["cls_logits"][:, 0], atol=1e-4)
    # torchvision's ResNet-18 has 11,689,512 with 1000 classes of 513 weights each.
    assert sum(w.size for w in weights.values()) == 11_689_512 - 1000 * 513 + 513
