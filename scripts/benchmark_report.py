"""The tables of `benchmark.py`, and docs/benchmarks.md out of their records."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxseg.errors import InputError

COLUMNS = ("measured", "seconds", "images/s", "speed of the first to this")
PRECISIONS = ("float32", "TF32", "bfloat16")
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "TPU v5 lite": 197e12,
}
"""Operations a second in bfloat16, dense, by the name that jax has for a device."""
AGAINST_COLUMNS = (
    "a step of",
    "measured",
    "on",
    "speed against PyTorch's fastest form in this precision",
    "in any",
)
SCALE_COLUMNS = (
    "devices",
    "step, ms",
    "sum of gradients, ms",
    "efficiency, sum waits",
    "sum hidden",
)
OPS_COLUMNS = ("operation", "ms", "plain form, ms", "speed of the first to this")
PLAN_COLUMNS = ("with", "GB", "MB an image", "largest batch")
FORECAST_COLUMNS = ("part", "seconds", "")
METHODS = {
    "step": "One training step, the uint8 batch already on the device: random "
    "left-right flips (not for SegDecNet), normalisation, forward, binary "
    "cross-entropy or SegDecNet's loss, backward, Adam (learning rate 0.001); no "
    "dropout. PyTorch trains the same network, from torchvision, timm or "
    "segmentation_models.pytorch where they have it, in a process of its own with as "
    "many threads, never at the same time. Before the timing both train in float32 "
    "from the same weights, and their losses have to agree. Both have pages of 2 MB "
    "where Linux has them. On a GPU PyTorch's forms go from float32 without TF32 to "
    "bfloat16 with torch.compile and to a whole step in one CUDA graph. With "
    "`--batches files` the batches are the training part of the config, shuffled: "
    "jaxseg's come out of its cache, decoded before the first step; PyTorch's are "
    "opened, resized and flipped by Pillow and NumPy in as many workers of a "
    "DataLoader as there are cores, and both read ahead while the other is timed. For "
    "comparison: the published SegDecNet trained on "
    "9.8 images/s of 640x232, one a step, reading included, on a GPU that is not "
    "named.",
    "suite": "Steps against PyTorch as above, a process each, those that matter most "
    "first, until the time is over. PyTorch's compiler takes minutes for a network: "
    "without --compiled first, then with it, from case to case by --first. PyTorch's "
    "side needs torchvision, timm and segmentation-models-pytorch.",
    "augment": "The step of jaxseg alone, as above, with other augmentations. The "
    "ratio is how many times as long a step takes with them.",
    "plan": "What the compiler lays out for a train step on one device, before it is "
    "run: state, batch, activations and gradients. The largest batch is that of a "
    "straight line through the need of the config's batch and of twice as many.",
    "scale": "Predicted, nothing of it is measured: each device keeps the batch of the "
    "config, and all add up their float32 gradients. The step takes its operations at "
    "40 % of the peak in bfloat16 (H200 989 TFLOP/s, TPU v5e 197). A sum over 8 H200 "
    "goes at 150 GB/s, over 64 and 256 at 40 GB/s (400 Gbit/s for each device), over "
    "TPUs at 200 GB/s. Efficiency is the speed of a device among the others to its "
    "speed alone: where the sum waits for the step, and where it hides behind it.",
    "forecast": "A training from files to the final metric on one H200 with 16 cores. "
    "The work of the cores is measured here, on one of them and rendered photographs; "
    "the rest is predicted: steps as above, a forward pass at a third of a step, and "
    "the pixels of the training part sent to the device at 25 GB/s. A network that "
    "waits for memory more than for arithmetic takes longer. Neither masks nor a "
    "published test part are counted.",
    "ops": "Operations of `jaxseg/ops.py` against the plain form that they equal, "
    "value and gradients, alone.",
    "input": "Random batches on one pinned core: out of the memory-mapped cache of "
    "decoded images, or decoded from JPEG in ArrayRecord every time. New batches are "
    "allocated by NumPy, three in flight, whose memory the C library hands out again; "
    "new pages come from the system every time. The images are rendered concrete.",
    "start": "Wall time from the start of a process. 'First step' is the time until "
    "the program says that its step is compiled and its images are decoded, plus the "
    "mean step of the first epoch. Cold: no data rendered, no cache. Warm: the same "
    "command once more.",
}


def make_table(record: dict) -> list[tuple[str, ...]]:
    """Column names, then rows of text."""
    if record["kind"] == "plan":
        return [PLAN_COLUMNS, *_plan_rows(record)]
    if record["kind"] == "scale":
        return [SCALE_COLUMNS, *_scale_rows(record)]
    if record["kind"] == "forecast":
        return [FORECAST_COLUMNS, *_forecast_rows(record)]
    if record["kind"] == "ops":
        return [OPS_COLUMNS, *_ops_rows(record)]
    return [COLUMNS, *_timed_rows(record)]


def _plan_rows(record: dict) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{lever['gigabytes']:.2f}",
            f"{lever['megabytes_per_image']:,.1f}",
            f"{lever['largest_batch']:,}",
        )
        for name, lever in record["levers"].items()
    ]


def _scale_rows(record: dict) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{1000 * row['step']:.2f}",
            f"{1000 * row['sum']:.2f}",
            f"{row['exposed']:.0%}",
            f"{row['hidden']:.0%}",
        )
        for name, row in record["devices"].items()
    ]


def _forecast_rows(record: dict) -> list[tuple[str, ...]]:
    return [
        (name, f"{seconds:.1f}", basis)
        for name, (seconds, basis) in record["parts"].items()
    ]


def _ops_rows(record: dict) -> list[tuple[str, ...]]:
    rows = []
    for name, row in record["rows"].items():
        times = (f"{1000 * seconds:.2f}" for seconds in row["seconds"].values())
        rows.append((name, *times, _range(row["ratios"]["plain form"])))
    return rows


def _timed_rows(record: dict) -> list[tuple[str, ...]]:
    rows = []
    for name, seconds in record["seconds"].items():
        images = f"{record['images'] / seconds:,.1f}" if record["images"] else ""
        ratio = ""
        if name in record["ratios"]:
            digits = 3 if record["kind"] == "augment" else 2
            ratio = _range(record["ratios"][name], digits)
        rows.append((name, f"{seconds:.4f}", images, ratio))
    return rows


def _range(ratio: Sequence[float], digits: int = 2) -> str:
    median, low, high = (f"{x:.{digits}f}" for x in ratio)
    return f"{median}x ({low} to {high})"


def facts_of(record: dict) -> list[str]:
    """What was found beside the table."""
    facts = []
    if "memory" in record:
        where = record["compiled_for"] or record["machine"]["device"]
        facts.append(f"compiled for {where}, of which each has {record['memory']} GB")
    if "measured" in record:
        facts.append(
            f"as it is, a step adds {record['predicted']:.2f} GB by the plan and "
            f"{record['measured']:.2f} GB when it is run"
        )
    if "blocks" in record:
        facts.append(f"{len(next(iter(record['blocks'].values())))} blocks of each")
    if "compile_seconds" in record:
        facts.append(f"compiled in {record['compile_seconds']:.1f} s")
    if record.get("operations"):
        each = record["operations"] / record["images"]
        speed = record["operations"] / next(iter(record["seconds"].values()))
        facts.append(f"{each / 1e9:.1f} GFLOP an image, {speed / 1e12:.3f} TFLOP/s")
        if peak := PEAKS.get(record["machine"]["device"]):
            facts.append(f"{speed / peak:.0%} of the peak in bfloat16")
        facts.append(
            f"an H200 would make at most {PEAKS['NVIDIA H200'] / each:,.0f} images/s "
            "(predicted: all of its 989 TFLOP/s in bfloat16, memory not counted)"
        )
    for rung, error in record.get("left_out", {}).items():
        facts.append(f"PyTorch {rung} is left out: {error}")
    if record.get("gigabytes"):
        facts.append(f"{record['gigabytes']:.2f} GB of memory")
    return facts


def make_report(records: Sequence[dict]) -> str:
    """The Markdown page; of the same measurement with the same versions the last."""
    latest = {_identity(record): record for record in records}
    lines = ["# Benchmarks", "", "Made by `python scripts/benchmark.py report`."]
    for kind, method in METHODS.items():
        chosen = [record for record in latest.values() if record["kind"] == kind]
        lines += ["", f"## {kind}", "", method] if chosen else []
        if against := _against_pytorch(chosen):
            lines += ["", *_markdown(AGAINST_COLUMNS, *against)]
        for record in chosen:
            lines += _report_lines(record)
    return "\n".join(lines) + "\n"


def _against_pytorch(records: Sequence[dict]) -> list[tuple[str, ...]]:
    """A row for every step that PyTorch took too."""
    rows = []
    for record in records:
        seconds, machine = record.get("seconds", {}), record["machine"]
        theirs = [name for name in seconds if name.startswith("PyTorch")]
        if not theirs:
            continue
        own = [name for name in seconds if name.startswith("jaxseg ")]
        precision = next(p for p in PRECISIONS if f"jaxseg {p}" in own[0])
        forms = [name for name in theirs if precision in name], theirs
        fastest = [min(names, key=seconds.get, default=None) for names in forms]
        ratios = [_range(record["ratios"][name]) if name else "" for name in fastest]
        first = next(iter(seconds))
        measured = first if precision in first else f"{first}, {precision}"
        cpu = f"{machine['cores']} core(s), jax {machine['versions']['jax']}"
        device = cpu if machine["device"] == "cpu" else machine["device"]
        rows.append((record["what"], measured, device, *ratios))
    return rows


def _identity(record: dict) -> str:
    machine = record["machine"]
    same = [machine[key] for key in ("cpu", "cores", "device", "versions")]
    return json.dumps([record["command"], *same])


def _report_lines(record: dict) -> list[str]:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    facts = [f"`benchmark.py {record['command']}`", versions]
    if record["kind"] != "scale":  # a prediction, the same wherever it is made
        if machine["device"] != "cpu":
            facts.append(f"{machine['device']} ({machine['driver']})")
        facts += [
            f"{machine['cpu']}, cores: {machine['cores']}",
            f"{machine['others']:.0%} of the machine used by other programs",
            f"XLA_FLAGS `{machine['flags']}`" if machine["flags"] else "no XLA_FLAGS",
        ]
    facts += facts_of(record)
    text = "; ".join(facts) + "."
    return ["", f"### {record['what']}", "", text, "", *_markdown(*make_table(record))]


def _markdown(columns: Sequence[str], *rows: Sequence[str]) -> list[str]:
    lines = (columns, ("---",) * len(columns), *rows)
    return [f"| {' | '.join(line)} |" for line in lines]


def write_report(folder: Path) -> None:
    """benchmarks.md in a folder, from the lines of benchmarks/*.json in it.

    Raises:
      InputError: there are none.
    """
    files = sorted((folder / "benchmarks").glob("*.json"))
    if not files:
        found, fix = f"none in {folder / 'benchmarks'}", "benchmark.py step --json FILE"
        raise InputError("measurements, *.json", found, fix)
    lines = [line for file in files for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    (folder / "benchmarks.md").write_text(make_report(records), encoding="utf-8")
    print(f"- {folder / 'benchmarks.md'} with {len(records)} measurements")
