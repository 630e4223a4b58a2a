"""Decoded once or in every epoch: the same bytes; a full disk leaves nothing behind."""

import collections
import dataclasses
import errno
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import cache
from jaxseg.data.cache import Decoded, Decoder, Streamed, open_source
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.data.pipeline import EvalLoader, TrainLoader
from jaxseg.errors import InputError
from jaxseg.types import IGNORE

SIZE = (24, 36)
IDS = MaskEncoding("ids")
Usage = collections.namedtuple("Usage", "total used free")


class Records(list):
    """What `prepare` gives: records by position, and several at once."""

    def __getitems__(self, positions):
        return [self[i] for i in positions]


class Unreadable(Records):
    """Records that nobody may read again."""

    def __getitem__(self, position):
        raise AssertionError(f"record {position} was decoded again")


def encoded(pixels, format, **options):
    picture, data = Image.fromarray(pixels), io.BytesIO()
    if "palette" in options:
        picture.putpalette(options.pop("palette"))
    picture.save(data, format, **options)
    return data.getvalue()


def make_records(count=11):
    """JPEG, grey PNG and RGBA images of several sizes; palette masks; one without."""
    random = np.random.default_rng(0)
    records = Records()
    for i in range(count):
        height, width = 40 + i, 30 + 3 * i
        image = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[i : i + 9, 5:25] = 1 + i % 2
        files = [
            encoded(image[..., :3].copy(), "JPEG", quality=80),
            encoded(image[..., 0].copy(), "PNG"),
            encoded(image, "PNG"),
        ]
        colours = [10, 20, 30, 255, 0, 0, 0, 255, 0]
        mask_file = encoded(mask, "PNG", palette=colours) if i else b""
        records.append({"image": files[i % 3], "mask": mask_file})
    return records


def begin(mode, folder, records=None, *, encoding=IDS, channels=3, size=SIZE):
    """A source that may still be decoding, and the words on it."""
    return open_source(
        make_records() if records is None else records,
        Decoder(size, channels, encoding),
        files_hash="0123456789abcdef" * 4,
        cache_dir=folder,
        mode=mode,
        workers=2,
    )


def open_mode(*arguments, **options):
    source, note = begin(*arguments, **options)
    source.wait()
    return source, note


def epochs(source):
    """Every array of two epochs of both loaders, copied."""
    labels = np.arange(11, dtype=np.int32)
    train = TrainLoader(
        source,
        labels,
        np.arange(11),
        batch_size=4,
        sampling="shuffle",
        seed=3,
        workers=2,
    )
    evaluate = EvalLoader(source, labels, np.arange(11), batch_size=4, workers=2)
    batches = [*train.batches(0, 2 * train.steps_per_epoch), *evaluate, *evaluate]
    return [{name: array.copy() for name, array in b.items()} for b in batches]


# The same bytes.


@pytest.mark.parametrize(("channels", "encoding"), [(3, IDS), (1, IDS), (3, None)])
def test_decoded_and_streamed_give_identical_batches(tmp_path, channels, encoding):
    options = dict(encoding=encoding, channels=channels)
    host, note = open_mode("host", tmp_path, **options)
    streamed, _ = open_mode("none", tmp_path, **options)
    assert isinstance(host, Decoded)
    assert isinstance(streamed, Streamed)
    assert str(tmp_path) in note
    first, second = epochs(host), epochs(streamed)
    assert len(first) == 2 * 2 + 2 * 3
    for one, other in zip(first, second, strict=True):
        named = {"label", "valid", "index", *host.decoder.fields()}
        assert one.keys() == other.keys() == named
        for name, array in one.items():
            assert array.dtype == other[name].dtype
            assert array.tobytes() == other[name].tobytes()


def test_pixels_are_those_of_pillow(tmp_path):
    records = make_records()
    source, _ = open_mode("host", tmp_path)
    out = {
        name: np.empty((11, *s), np.uint8)
        for name, (s, _) in source.decoder.fields().items()
    }
    source.read(np.arange(11), out)
    for i, record in enumerate(records):
        picture = Image.open(io.BytesIO(record["image"])).convert("RGB")
        wanted = picture.resize(SIZE[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(out["image"][i], np.asarray(wanted))
        if record["mask"]:
            indices = Image.fromarray(
                np.asarray(Image.open(io.BytesIO(record["mask"])))
            )
            wanted = indices.resize(SIZE[::-1], Image.Resampling.NEAREST)
            np.testing.assert_array_equal(out["mask"][i], np.asarray(wanted))
            assert set(np.unique(out["mask"][i])) == {0, 1 + i % 2}
    assert (out["mask"][0] == IGNORE).all()  # an image without a mask


# Once.


@pytest.mark.parametrize("mode", ["host", "auto"])
def test_a_second_opening_decodes_nothing(tmp_path, mode):
    first, _ = open_mode("host", tmp_path)
    before = epochs(first)
    second, _ = open_mode(mode, tmp_path, Unreadable(make_records()))
    for one, other in zip(before, epochs(second), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_every_record_is_decoded_once(tmp_path, monkeypatch):
    decoded = []
    original = Decoder.decode

    def counted(self, record):
        decoded.append(record["image"])
        return original(self, record)

    monkeypatch.setattr(Decoder, "decode", counted)
    source, _ = open_mode("host", tmp_path)
    assert sorted(decoded) == sorted(r["image"] for r in make_records())
    epochs(source)
    assert len(decoded) == 11


def test_the_key_changes_with_the_pixels():
    decoder = Decoder(SIZE, 3, IDS)
    others = [
        dataclasses.replace(decoder, image_size=SIZE[::-1]),
        dataclasses.replace(decoder, channels=1),
        dataclasses.replace(decoder, encoding=MaskEncoding("binary")),
        dataclasses.replace(decoder, encoding=None),
        *(
            dataclasses.replace(decoder, encoding=MaskEncoding("palette", colours))
            for colours in (("#000000", "#ff0000"), ("#ff0000", "#000000"))
        ),
    ]
    assert len({d.key for d in [decoder, *others]}) == 7
    assert dataclasses.replace(decoder).key == decoder.key


def test_two_resize_rules_live_side_by_side(tmp_path):
    large, _ = open_mode("host", tmp_path)
    small, _ = open_mode("host", tmp_path, size=(8, 8))
    assert len([p for p in (tmp_path / "decoded").iterdir() if p.is_dir()]) == 2
    for source, size in ((large, SIZE), (small, (8, 8))):
        out = {n: np.empty((2, *s), d) for n, (s, d) in source.decoder.fields().items()}
        source.read(np.array([4, 1]), out)
        assert out["image"].shape == (2, *size, 3)


# Meanwhile.


def test_a_source_is_there_before_its_pixels_and_reading_waits(tmp_path, monkeypatch):
    may_decode, original = threading.Event(), Decoder.decode

    def decode(self, record):
        assert may_decode.wait(60)
        return original(self, record)

    monkeypatch.setattr(Decoder, "decode", decode)
    source, _ = begin("host", tmp_path)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(epochs, source)
        assert not reading.done()
        assert not list((tmp_path / "decoded").glob("[!.]*/image.npy"))
        may_decode.set()
        batches = reading.result(60)
    monkeypatch.undo()
    streamed, _ = open_mode("none", tmp_path)
    for one, other in zip(batches, epochs(streamed), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_what_goes_wrong_while_decoding_meets_every_reader(tmp_path):
    broken = Records([{"image": b"not a picture", "mask": b""}] * 11)
    source, _ = begin("host", tmp_path, broken)
    for ask in (source.wait, source.wait, lambda: epochs(source)):
        with pytest.raises(Exception, match="not an image"):
            ask()


ENDLESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_cache
test_cache.Decoder.decode = lambda self, record: time.sleep(3600)
test_cache.begin("host", Path(sys.argv[2]))
"""


def test_decoding_does_not_keep_a_program_from_ending(tmp_path):
    command = [sys.executable, "-c", ENDLESS, os.path.dirname(__file__), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    source, _ = open_mode("host", tmp_path)
    assert len(epochs(source)) == 10


# Disks.


def assert_nothing_left(folder):
    left = [path.name for path in (folder / "decoded").glob("*")]
    assert all(name.endswith(".lock") for name in left), left


def test_a_disk_that_fills_up_is_an_input_error(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError) as caught:
        open_mode("host", tmp_path)
    assert "No space left on device" in caught.value.found
    assert "--config.data.cache=none" in caught.value.fix
    assert_nothing_left(tmp_path)
    monkeypatch.undo()
    assert isinstance(open_mode("host", tmp_path)[0], Decoded)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_cache
from jaxseg.errors import InputError
records = test_cache.make_records()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    test_cache.open_mode("host", Path(sys.argv[2]), records)
except InputError as error:
    print(error)
"""


def test_a_real_limit_on_file_sizes_leaves_nothing_behind(tmp_path):
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, here, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "--config.data.cache=none" in done.stdout
    assert_nothing_left(tmp_path)


def with_free_bytes(monkeypatch, free):
    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda folder: Usage(10**9, 0, free)
    )


def test_auto_streams_where_the_disk_is_tight_and_says_so(tmp_path, monkeypatch):
    size = 11 * 24 * 36 * (3 + 1)
    with_free_bytes(monkeypatch, 2 * size - 1)
    source, note = open_mode("auto", tmp_path)
    assert isinstance(source, Streamed)
    assert "decoded in every epoch" in note
    assert str(tmp_path) in note
    assert not (tmp_path / "decoded").exists()
    with_free_bytes(monkeypatch, 2 * size)
    source, note = open_mode("auto", tmp_path)
    assert isinstance(source, Decoded)
    with_free_bytes(monkeypatch, 0)  # what is decoded already needs no room
    assert isinstance(open_mode("auto", tmp_path)[0], Decoded)


def test_host_refuses_a_disk_without_room_before_it_decodes(tmp_path, monkeypatch):
    with_free_bytes(monkeypatch, 11 * 24 * 36 * 4 - 1)
    with pytest.raises(InputError) as caught:
        open_mode("host", tmp_path, Unreadable(make_records()))
    assert "--config.data.cache=none" in caught.value.fix
    assert_nothing_left(tmp_path)


def test_an_interrupted_decoding_starts_anew(tmp_path):
    records = make_records()
    broken = Records(records[:7]) + [{"image": b"not a picture", "mask": b""}] * 4
    with pytest.raises(Exception, match="not an image"):
        open_mode("host", tmp_path, Records(broken))
    assert_nothing_left(tmp_path)
    source, _ = open_mode("host", tmp_path, records)
    assert len(epochs(source)) == 10


def test_streaming_writes_nothing(tmp_path):
    source, note = open_mode("none", tmp_path / "cache")
    epochs(source)
    assert note == "images are decoded in every epoch"
    assert not (tmp_path / "cache").exists()
