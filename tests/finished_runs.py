"""Run folders of known scores, as a training leaves them, without a network."""

import io
import json

import numpy as np
from PIL import Image

from jaxseg import losses, metrics, tasks
from jaxseg.files import to_json
from jaxseg.report import evidence, results
from jaxseg.tasks import NUM_BINS

BINARY, SEVERAL = ("background", "crack"), ("background", "crack", "spall")
RULE = dict(threshold="max_f1", min_recall=0.9)
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "../../outside",
    '=HYPERLINK("http://example.com")',
    "a'b\"c&amp;d",
    "mặt đường \u202e gpj",
)


def pixels(random, labels, num_classes=2):
    """Histograms [n, 2, B] or confusions [n, K, K] of images with 400 pixels."""
    if num_classes > 2:
        tables = random.multinomial(40, [0.2] * 5, size=len(labels))
        counts = np.zeros((len(labels), 3, 3), np.int64)
        counts[:, 0, 0] = 400 - 40 * labels
        counts[:, 1, 1], counts[:, 1, 0] = (labels * tables[:, k] for k in (0, 1))
        counts[:, 2, 2], counts[:, 2, 1] = (labels * tables[:, k] for k in (2, 3))
        counts[:, 0, 1] = tables[:, 4] * (random.random(len(labels)) < 0.3)
        return {"confusion": counts, "score": random.random(len(labels))}
    histogram = np.zeros((len(labels), 2, NUM_BINS), np.int64)
    for i, label in enumerate(labels):
        clean = random.beta(1, 6, 400 - 40 * label)
        crack = random.beta(3, 3, 40 * label)
        for k, scores in enumerate((clean, crack)):
            bins = (scores * NUM_BINS).astype(int)
            np.add.at(histogram[i, k], bins, 1)
    return {"histogram": histogram}


def counts_of(kind, random, n):
    """What an evaluation counts of n images; `kind` as of `task_of`."""
    labels = random.integers(3 if kind == "classes" else 2, size=n)
    counts = {"loss": random.random(n).astype(np.float32), "label": labels}
    if kind == "classes":
        logits = random.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        counts["image_probs"] = probs.astype(np.float32)
    if kind in ("binary", "joint"):
        logits = random.normal(2 * labels - 1, 1.2)
        scores = 1 / (1 + np.exp(-2 * logits))
        counts["image_probs"] = scores.astype(np.float32)[:, None]
    if kind in ("masks", "joint", "regions"):
        counts |= pixels(random, labels, 3 if kind == "regions" else 2)
        counts["soft_sums"] = random.random((n, 3 if kind == "regions" else 1, 3))
    return counts


def task_of(kind):
    """'binary', 'classes' of images; 'masks', 'regions' of two or three; 'joint'."""
    loss = losses.bce
    if kind == "binary":
        return tasks.classification(("intact", "cracked"), loss, **RULE)
    if kind == "classes":
        return tasks.classification(("healthy", "rust", "miner"), loss, **RULE)
    if kind == "joint":
        return tasks.joint(BINARY, loss, mask_weight=1.0, image_weight=1.0, **RULE)
    return tasks.segmentation(SEVERAL if kind == "regions" else BINARY, loss, **RULE)


def small_picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (shade, 90, 120)).save(file, "JPEG")
    return file.getvalue()


def make_finished(folder, kind="joint", *, n=60, seed=0, notes=(), names=None):
    """Writes a run folder; returns (task, counts, thresholds) of the judged images."""
    random, task = np.random.default_rng(seed), task_of(kind)
    val, counts = counts_of(kind, random, n), counts_of(kind, random, n)
    thresholds = task.choose_thresholds(val)
    names = names or [*HOSTILE, *(f"wall{i // 4}/{i}" for i in range(len(HOSTILE), n))]
    summary = {
        "num_images": n,
        **metrics.loss_summary(counts),
        **task.summarize(counts, thresholds),
    }
    rows = {"name": names, **task.rows(counts, thresholds)}
    table = [
        dict(zip(rows, cells, strict=True))
        for cells in zip(*rows.values(), strict=True)
    ]
    results.write_results(folder / "test" / "results.csv", table)
    results.write_metrics(folder / "test" / "metrics.json", summary)
    of_val = evidence.of_validation(task, val, thresholds)
    judged = evidence.of_judged(counts, thresholds, np.arange(n))
    shades = [small_picture(4 * i % 256) for i in range(n)]
    evidence.write(folder / "test", {**of_val, **judged}, shades)
    _write_record(folder, kind, task, thresholds, notes)
    groups = [name.split("/")[0] if "wall" in name else name for name in names]
    results.write_rows(
        folder / "split.csv",
        ["id", "label", "group", "split", "sha256"],
        [
            {"id": name, "label": 0, "group": group, "split": "test", "sha256": ""}
            for name, group in zip(names, groups, strict=True)
        ],
    )
    return task, counts, thresholds


def _write_record(folder, kind, task, thresholds, notes):
    name = {"binary": "classification", "classes": "classification", "joint": "joint"}
    config = {
        "seed": 0,
        "task": {"name": name.get(kind, "segmentation")},
        "model": {"name": "unet"},
        "data": {"name": "folder_segmentation", "dir": "/data", "split": "grouped"},
        "train": {"monitor": "loss", "epochs": 3, "batch_size": 8},
    }
    record = {
        "config": config,
        "data_hash": "d" * 64,
        "parameters": 1234,
        "precision": "float32",
        "steps_per_epoch": [5],
        "origin": {"config": "mine.py", "overrides": ["seed=<b>1</b>"]},
        "notes": list(notes),
        "environment": {"device": "1 x cpu", "versions": {"jax": "0.12"}},
    }
    (folder / "config.json").write_text(json.dumps(record))
    model = {
        "model": {"name": "unet"},
        "classes": task.classes,
        "thresholds": {
            kind: {"value": t.value, "rule": t.rule, "note": t.note}
            for kind, t in thresholds.items()
        },
        "metrics": {"test": {}},
        "best_epoch": 2,
    }
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.json").write_text(json.dumps(to_json(model)))
    history = "epoch,train/loss,val/loss,learning_rate,images_per_second,input_wait\n"
    history += "1,3.0,2.5,0.1,4,0.01\n2,0.9,0.8,0.1,8,0.02\n3,0.5,0.9,0.1,10,0.02\n"
    (folder / "metrics.csv").write_text(history)
