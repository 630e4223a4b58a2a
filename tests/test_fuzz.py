"""Damaged and hostile files are read or refused; fuzz.py tries more of them."""

import contextlib
import copy
import json

import fuzz
import pytest
from PIL import Image

from jaxseg.data import images
from jaxseg.errors import InputError


@pytest.fixture
def fuzzer(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # set anew, and back after it
    images.allow_pixels(fuzz.MAX_PIXELS)
    return fuzz.Fuzzer(tmp_path, seed=7)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what is wrong with a file
def test_damaged_files_are_read_or_refused_and_nothing_else_happens(fuzzer):
    outcomes, failures, _ = fuzzer.run(300, fuzz.Watch())
    assert failures == []
    for kind in fuzzer.kinds:  # all were tried, and the damage was damage
        assert outcomes[f"{kind}: refused"] > 0, kind


def test_the_watch_sees_what_is_written_elsewhere(tmp_path):
    watch, inside = fuzz.Watch(), tmp_path / "out"
    inside.mkdir()
    watch.start(inside)
    (inside / "a").write_text("")
    (inside / ".." / "b").write_text("")
    (inside / "a").rename(inside / "c")
    (tmp_path / "d").mkdir()
    watch.stop()
    (tmp_path / "e").write_text("")
    assert watch.seen == [f"open {tmp_path / 'b'}", f"os.mkdir {tmp_path / 'd'}"]


HOSTILE = {
    "a name too long for a file": ("coco", ("images", 0, "file_name"), "x" * 5000),
    "the same in LabelMe": ("labelme", ("imagePath",), "x" * 300 + ".png"),
    "a name with a zero byte": ("labelme", ("imagePath",), "\0.png"),
    "a negative width": ("model.json", ("model", "widths", 0), -1),
    "a width beyond all": ("model.json", ("model", "widths", 0), 2**63),
    "images beyond all": ("model.json", ("preprocessing", "image_size", 0), 2**31),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_value_is_read_or_refused(fuzzer, tmp_path, monkeypatch, kind):
    name, place, value = HOSTILE[kind]
    write, use, _ = fuzzer.kinds[name]

    def distort(tree, rng):
        tree = holder = copy.deepcopy(tree)
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        return json.dumps(tree).encode()

    monkeypatch.setattr(fuzz, "distort", distort)
    folder = tmp_path / "hostile"
    folder.mkdir()
    write(folder)
    with contextlib.suppress(InputError):
        use(folder)


@pytest.mark.parametrize("name", ["labelme", "coco", "model.json", "config.json"])
@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"1"])
def test_other_json_is_refused(fuzzer, tmp_path, monkeypatch, name, text):
    write, use, _ = fuzzer.kinds[name]
    monkeypatch.setattr(fuzz, "distort", lambda tree, rng: text)
    folder = tmp_path / "hostile"
    folder.mkdir()
    write(folder)
    with pytest.raises(InputError):
        use(folder)
