"""Prepared records: the bytes of the files, in order, complete or not there at all."""

import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxseg.data import prepare as module
from jaxseg.data.check import check
from jaxseg.data.prepare import Prepared, prepare
from jaxseg.datasets.folder_classification import scan as scan_classes
from jaxseg.datasets.folder_segmentation import scan

NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pairs(root, count=23):
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        mask[i % 16] = 255
        save(root / "images" / f"{i}.jpg", np.roll(NOISE, i, axis=0))
        save(root / "masks" / f"{i}.png", mask)
    return root


def check_pairs(root):
    listing = scan(
        root,
        image_dir="images",
        mask_dir="masks",
        mask_suffix="",
        foreground="bright",
        classes=("background", "crack"),
        classes_file="",
        group_pattern="",
    )
    return check(
        listing,
        palette=(),
        on_corrupt="fail",
        workers=2,
        progress=lambda items, total, description: items,
    )


def files_of(checked):
    return [
        {
            "image": item.record.image.read_bytes(),
            "mask": item.record.mask.read_bytes() if item.record.mask else b"",
        }
        for item in checked.records
    ]


def forbid_writing(monkeypatch):
    def refused(checked, folder):
        raise AssertionError("prepared again")

    monkeypatch.setattr(module, "_write", refused)


def test_record_i_holds_the_bytes_of_files_i(tmp_path):
    checked = check_pairs(write_pairs(tmp_path / "data"))
    source = prepare(checked, tmp_path / "cache")
    wanted = files_of(checked)
    assert len(source) == 23
    assert [source[i] for i in range(23)] == wanted
    order = [22, 0, 7, 7]
    assert source.__getitems__(order) == [wanted[i] for i in order]


def test_the_order_holds_over_several_shards(tmp_path, monkeypatch):
    checked = check_pairs(write_pairs(tmp_path / "data"))
    in_shards = functools.partialmethod(
        Prepared.download_and_prepare,
        download_config=tfds.download.DownloadConfig(num_shards=4),
    )
    monkeypatch.setattr(Prepared, "download_and_prepare", in_shards)
    source = prepare(checked, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.array_record*"))) == 4
    assert [source[i] for i in range(23)] == files_of(checked)


def test_images_without_masks_have_empty_ones(tmp_path):
    for i in range(4):
        save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", np.roll(NOISE, i, axis=1))
    listing = scan_classes(tmp_path / "data", classes=(), group_pattern="")
    checked = check(
        listing,
        palette=(),
        on_corrupt="fail",
        workers=1,
        progress=lambda items, total, description: items,
    )
    source = prepare(checked, tmp_path / "cache")
    assert [source[i] for i in range(4)] == files_of(checked)
    assert source[0]["mask"] == b""


def test_touched_and_moved_files_are_not_prepared_again(tmp_path, monkeypatch):
    root = write_pairs(tmp_path / "data", 5)
    before = check_pairs(root)
    prepare(before, tmp_path / "cache")
    os.utime(root / "images" / "1.jpg", ns=(0, 12345))
    root.rename(tmp_path / "moved")
    after = check_pairs(tmp_path / "moved")
    forbid_writing(monkeypatch)
    source = prepare(after, tmp_path / "cache")
    assert [source[i] for i in range(5)] == files_of(after)
    shutil.rmtree(tmp_path / "moved")
    assert len(prepare(after, tmp_path / "cache")[4]["image"]) > 0


def test_other_names_labels_and_groups_are_not_prepared_again(tmp_path, monkeypatch):
    before = check_pairs(write_pairs(tmp_path / "data", 5))
    prepare(before, tmp_path / "cache")
    renamed = [
        dataclasses.replace(
            item,
            label=1 - item.label,
            record=dataclasses.replace(
                item.record, id=f"new/{i}", group="one", split="train"
            ),
        )
        for i, item in enumerate(before.records)
    ]
    after = dataclasses.replace(before, records=tuple(renamed), content_hash="other")
    forbid_writing(monkeypatch)
    source = prepare(after, tmp_path / "cache")
    assert [source[i] for i in range(5)] == files_of(before)


def test_files_in_another_order_and_exchanged_masks_are_another_set(tmp_path):
    checked = check_pairs(write_pairs(tmp_path / "data", 3))
    first, second, third = checked.records
    exchanged = [
        dataclasses.replace(item, mask_sha256=other.mask_sha256)
        for item, other in ((first, second), (second, first))
    ]
    sets = [(first, second, third), (second, first, third), (*exchanged, third)]
    sets += [(first, second)]
    hashes = {dataclasses.replace(checked, records=s).files_hash for s in sets}
    assert len(hashes) == 4


def test_changed_content_is_prepared_anew_beside_the_old(tmp_path):
    root = write_pairs(tmp_path / "data", 5)
    old = check_pairs(root)
    kept = files_of(old)
    first = prepare(old, tmp_path / "cache")
    save(root / "masks" / "2.png", np.full((16, 16), 255, np.uint8))
    new = check_pairs(root)
    second = prepare(new, tmp_path / "cache")
    assert [second[i] for i in range(5)] == files_of(new)
    assert [first[i] for i in range(5)] == kept
    assert second[2]["mask"] != first[2]["mask"]


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_prepare
def track(items, total, description):
    for i, item in enumerate(items):
        if i == total // 2:
            print("half-way", file=sys.stderr, flush=True)
            time.sleep(100)
        yield item
test_prepare.module.progress.track = track
folder = Path(sys.argv[2])
test_prepare.prepare(test_prepare.check_pairs(folder / "data"), folder / "cache")
"""


def test_a_preparation_killed_half_way_leaves_nothing_that_looks_finished(tmp_path):
    checked = check_pairs(write_pairs(tmp_path / "data"))
    script = [sys.executable, "-c", SLOW, os.path.dirname(__file__), str(tmp_path)]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stderr.readline, "")
        assert any("half-way" in line for line in lines)
        process.send_signal(signal.SIGKILL)
    folder = tmp_path / "cache" / "prepared"
    finished = folder / checked.files_hash[:20]
    leftovers = [path for path in folder.iterdir() if path.is_dir()]
    assert leftovers, "it was killed before it wrote anything"
    assert not finished.exists()
    source = prepare(checked, tmp_path / "cache")
    assert [source[i] for i in range(23)] == files_of(checked)
    assert [path for path in folder.iterdir() if path.is_dir()] == [finished]


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_prepare
from jaxseg.errors import InputError
checked = test_prepare.check_pairs(Path(sys.argv[2]) / "data")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    test_prepare.prepare(checked, Path(sys.argv[2]) / "cache")
except InputError as error:
    print(error)
"""


def test_a_real_limit_on_file_sizes_is_an_input_error(tmp_path):
    write_pairs(tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, os.path.dirname(__file__), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "--config.data.cache_dir=DIR" in done.stdout
    left = [path.suffix for path in (tmp_path / "cache" / "prepared").iterdir()]
    assert left == [".lock"]


def test_an_exception_half_way_leaves_nothing(tmp_path, monkeypatch):
    root = write_pairs(tmp_path / "data", 5)
    checked = check_pairs(root)
    (root / "images" / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        prepare(checked, tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache" / "prepared").iterdir()]
    assert left == [f"{checked.files_hash[:20]}.lock"]
