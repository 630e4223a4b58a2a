"""A folder with each defect, and the words in which the user hears of it."""

import ast
import dataclasses
import hashlib
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.check import check
from jaxseg.data.mask_values import MaskEncoding, encode_mask
from jaxseg.data.stored import fingerprint, from_json, to_json
from jaxseg.datasets.record import Listing, Record
from jaxseg.errors import InputError

CLASSES = ("background", "crack")
THREE = ("background", "rust", "crack")
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def save(path, pixels, **options):
    pixels = np.ascontiguousarray(pixels)
    Image.fromarray(pixels).save(path, **options)
    return path


def mask_of(*values, size=(32, 32)):
    """The first value everywhere, each other value on one row."""
    mask = np.full(size, values[0], np.uint8)
    for row, value in enumerate(values[1:], start=1):
        mask[row] = value
    return mask


def listing_of(folder, *masks, classes=CLASSES, suffix=".png", **options):
    """A record per mask array, with an image of its own; `None` gives no mask."""
    records = []
    for index, mask in enumerate(masks):
        image = save(folder / f"{index}.png", np.roll(NOISE, index, axis=0))
        path = None
        if mask is not None:
            path = save(folder / f"{index}_mask{suffix}", mask, **options)
        label = 0 if mask is None else None
        records.append(Record(f"r{index}", image, path, label, f"g{index}"))
    return Listing(tuple(records), classes)


def run(listing, palette=(), on_corrupt="fail"):
    return check(
        listing,
        palette=palette,
        on_corrupt=on_corrupt,
        workers=2,
        progress=lambda iterable, total, description: iterable,
    )


def refusal(listing, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        run(listing, **options)
    return caught.value


def with_file(listing, index, **fields):
    records = list(listing.records)
    records[index] = dataclasses.replace(records[index], **fields)
    return dataclasses.replace(listing, records=tuple(records))


# How mask values are read.


@pytest.mark.parametrize(
    ("values", "classes", "encoding", "note"),
    [
        ((0, 255), CLASSES, "binary", "masks hold {0, 255}: 255 is class 1 (crack)"),
        ((0, 1), CLASSES, "ids", "masks hold class ids 0, 1"),
        ((0, 1, 2), THREE, "ids", "masks hold class ids 0, 1, 2"),
        (
            (0, 1, 255),
            CLASSES,
            "ids",
            "masks hold class ids 0, 1, 255: 255 counts nowhere (3.1 %)",
        ),
        (
            (0, 1, 2, 255),
            THREE,
            "ids",
            "masks hold class ids 0, 1, 2, 255: 255 counts nowhere (3.1 %)",
        ),
        (
            (0, 128),
            CLASSES,
            "threshold",
            "masks hold {0, 128}: values over 127 are class 1 (crack)",
        ),
        (
            (0, 40, 90, 170, 220, 255),
            CLASSES,
            "threshold",
            "masks are anti-aliased or JPEG-compressed (12 % of the pixels in "
            "32..223): values over 127 are class 1 (crack)",
        ),
    ],
)
def test_values_decide_the_encoding_and_a_note_says_so(
    tmp_path, values, classes, encoding, note
):
    checked = run(listing_of(tmp_path, mask_of(*values), classes=classes))
    assert checked.encoding == MaskEncoding(encoding)
    assert checked.notes[0] == note


DARK = dict(mask_values="dark")


@pytest.mark.parametrize(
    ("values", "kind"), [((255, 0), "binary"), ((1, 0), "ids"), ((250, 5), "threshold")]
)
def test_dark_lines_can_be_the_foreground(tmp_path, values, kind):
    listing = listing_of(tmp_path, mask_of(*values))
    checked = run(dataclasses.replace(listing, **DARK))
    assert checked.encoding == MaskEncoding(kind, dark=True)
    assert checked.notes[0].endswith("data.foreground='dark' swaps the classes 0 and 1")
    assert checked.records[0].class_pixels == (31 * 32, 32)
    mask = encode_mask(mask_of(*values, 255), checked.encoding)
    assert mask[1].tolist() == [1] * 32  # the row of the dark line
    assert mask[0].tolist() == [0] * 32
    assert not any("WARNING" in note for note in checked.notes)


def test_ignored_pixels_stay_ignored_where_dark_is_the_foreground(tmp_path):
    listing = listing_of(tmp_path, mask_of(1, 0, 255))
    checked = run(dataclasses.replace(listing, **DARK))
    assert checked.records[0].class_pixels == (30 * 32, 32)


@pytest.mark.parametrize(
    ("values", "chosen", "other"),
    [((255, 0), "auto", "dark"), ((0, 255), "dark", "bright")],
)
def test_more_foreground_than_background_names_the_other_choice(
    tmp_path, values, chosen, other
):
    listing = listing_of(tmp_path, mask_of(*values))
    notes = run(dataclasses.replace(listing, mask_values=chosen)).notes
    (warning,) = [note for note in notes if note.startswith("WARNING")]
    assert "97 % of the mask pixels are crack" in warning
    assert warning.endswith(f"--config.data.foreground={other}")


@pytest.mark.parametrize(
    ("classes", "palette"), [(THREE, ()), (CLASSES, ("#000000", "#ffffff"))]
)
def test_dark_foreground_is_for_binary_grey_masks(tmp_path, classes, palette):
    listing = listing_of(tmp_path, mask_of(0, 255), classes=classes)
    error = refusal(dataclasses.replace(listing, **DARK), palette=palette)
    assert error.fix == "--config.data.foreground=bright"


def test_colours_beyond_the_classes_count_nowhere(tmp_path):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[1], mask[2], mask[3:5] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    listing = listing_of(tmp_path, mask, classes=THREE)
    colours = ("#000000", "#800000", "#008000", "#E0E0C0")
    checked = run(listing, palette=colours)
    assert checked.records[0].class_pixels == (28 * 32, 32, 32)
    assert "#008000 is crack, #e0e0c0 is ignored" in checked.notes[0]
    ids = encode_mask(mask, checked.encoding)
    assert (ids[3:5] == 255).all()
    assert np.unique(ids[:3]).tolist() == [0, 1, 2]
    error = refusal(listing, palette=colours[:3])
    assert error.found == "#e0e0c0 6.2 %"
    assert "'#008000', '#e0e0c0'" in error.fix


def test_masks_of_ids_hold_no_other_values(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255))
    error = refusal(dataclasses.replace(listing, mask_values="ids"))
    assert "no mask has a foreground pixel" in error.found
    listing = listing_of(tmp_path, mask_of(0, 100))
    error = refusal(dataclasses.replace(listing, mask_values="ids"))
    assert "values 0, 100" in error.found


def test_pixels_of_each_class_are_kept(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 1, 2, 2, 255), None, classes=THREE)
    first, second = run(listing).records
    assert first.class_pixels == (28 * 32, 32, 64)
    assert first.foreground == 96 / (31 * 32)
    assert second.class_pixels == ()
    assert second.foreground is None


def test_blank_images_are_set_aside_and_counted(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255), mask_of(0, 255))
    half = np.full((32, 32, 3), 255, np.uint8)
    half[:15, :, 0] = 254  # white in two channels only
    save(listing.records[0].image, half)
    checked = run(dataclasses.replace(listing, max_blank=0.5))
    assert checked.skipped == (("r0", "53.1 % of the pixels are blank (pure white)"),)
    assert [item.record.id for item in checked.records] == ["r1"]
    assert checked.notes[-1].startswith("1 images with over 50 % of pure white")
    assert not run(dataclasses.replace(listing, max_blank=0.54)).skipped
    save(listing.records[1].image, half)
    error = refusal(dataclasses.replace(listing, max_blank=0.5))
    assert "all 2 have more" in error.found
    assert error.fix.startswith("--config.data.max_blank=1.0")


def test_the_whole_set_decides_not_one_mask(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 1), mask_of(0), mask_of(0, 1, 2))
    assert "values 0, 1, 2" in refusal(listing).found


def test_jpeg_masks_are_thresholded(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[10:13, 3:29] = 255
    listing = listing_of(tmp_path, mask, suffix=".jpg", quality=75)
    checked = run(listing)
    assert checked.encoding == MaskEncoding("threshold")
    assert checked.records[0].foreground == pytest.approx(3 * 26 / 1024, rel=0.1)


def test_palette_1_bit_16_bit_and_grey_rgb_masks_hold_ids(tmp_path):
    ids = mask_of(0, 1)
    listing = listing_of(tmp_path, ids, ids > 0, ids.astype(np.uint16), ids, ids)
    palette = Image.fromarray(ids)
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(listing.records[3].mask)
    save(listing.records[4].mask, np.stack([ids] * 3, -1))
    checked = run(listing)
    assert checked.encoding == MaskEncoding("ids")
    assert [item.foreground for item in checked.records] == [1 / 32] * 5
    assert "1 of 5 masks have a palette: its indices are the values" in checked.notes[1]


def test_colour_masks_need_a_palette_and_the_line_is_given(tmp_path):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[:8] = 255, 0, 0
    listing = listing_of(tmp_path, mask, np.zeros_like(mask))
    error = refusal(listing)
    assert error.found == "1 colour-coded masks (r0): #000000 87.5 %, #ff0000 12.5 %"
    line = """--config.data.palette="('#000000', '#ff0000')\""""
    assert error.fix == f"{line}  in the order of data.classes"
    checked = run(listing, palette=("#000000", "#FF0000"))
    assert checked.encoding == MaskEncoding("palette", ("#000000", "#ff0000"))
    assert [item.foreground for item in checked.records] == [0.25, 0.0]
    assert [item.label for item in checked.records] == [1, 0]
    assert checked.notes == (
        "masks are colour-coded: #000000 is background, #ff0000 is crack",
        "1 of 2 masks are all background",
    )


def test_a_colour_outside_the_palette_is_named_with_its_share(tmp_path):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[:8], mask[8:12] = (255, 0, 0), (0, 0, 255)
    error = refusal(listing_of(tmp_path, mask), palette=("#000000", "#ff0000"))
    assert error.found == "#0000ff 12.5 %"
    assert error.fix == (
        """--config.data.palette="('#000000', '#ff0000', '#0000ff')" """
        """--config.data.classes="('background', 'crack', 'class_2')\""""
    )


def test_a_palette_for_masks_of_ids_is_refused(tmp_path):
    error = refusal(listing_of(tmp_path, mask_of(0, 1)), palette=("#000000", "#ff0000"))
    assert error.fix.startswith('--config.data.palette="()"')


@pytest.mark.parametrize(
    "palette", [("#000000",), ("#000000", "red"), ("#ff0000", "#FF0000")]
)
def test_a_palette_has_one_colour_for_each_class(tmp_path, palette):
    error = refusal(listing_of(tmp_path, mask_of(0, 255)), palette=palette)
    assert "one colour '#rrggbb' for each of the 2 classes" in error.expected
    assert error.fix == """--config.data.palette="('#000000', '#ffffff')\""""


def test_grey_levels_can_be_named_as_colours(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 100))
    error = refusal(listing)
    assert error.found == "values 0, 100"
    line = """--config.data.palette="('#000000', '#646464')\""""
    assert error.fix.startswith(line)
    checked = run(listing, palette=("#000000", "#646464"))
    assert checked.records[0].foreground == 1 / 32


@pytest.mark.parametrize(
    ("values", "classes", "line"),
    [
        ((0, 1, 2, 3), CLASSES, "('background', 'crack', 'class_2', 'class_3')"),
        ((0, 1, 2, 255), CLASSES, "('background', 'crack', 'class_2')"),
        ((0, 1, 3), THREE, "('background', 'rust', 'crack', 'class_3')"),
    ],
)
def test_ids_above_the_classes_are_refused_with_the_right_number_of_names(
    tmp_path, values, classes, line
):
    error = refusal(listing_of(tmp_path, mask_of(*values), classes=classes))
    assert error.expected.startswith(
        f"mask values 0..{len(classes) - 1} for background"
    )
    assert error.found == f"values {', '.join(map(str, values))}"
    assert error.fix == f'--config.data.classes="{line}"'


def test_150_ids_do_not_pass_as_a_grey_mask(tmp_path):
    mask = np.arange(151, dtype=np.uint8).repeat(7)[: 32 * 32]
    mask = np.resize(mask, (32, 32))
    assert refusal(listing_of(tmp_path, mask)).found.startswith("values 0, 1, 2, 3")


@pytest.mark.parametrize("pixels", [NOISE, NOISE[..., 0]])
def test_photos_in_place_of_masks_are_refused(tmp_path, pixels):
    assert "photos" in str(refusal(listing_of(tmp_path, pixels)))


def test_masks_without_any_foreground_are_refused(tmp_path):
    error = refusal(listing_of(tmp_path, mask_of(0), mask_of(0)))
    assert error.found == "no mask has a foreground pixel: 2 masks, values 0"


def test_0_and_255_with_three_classes_is_refused(tmp_path):
    error = refusal(listing_of(tmp_path, mask_of(0, 255), classes=THREE))
    assert error.found.endswith("values 0, 255 (255 counts nowhere)")
    assert error.fix == """--config.data.classes="('background', 'crack')\""""


def test_notes_name_absent_classes(tmp_path):
    checked = run(listing_of(tmp_path, mask_of(0, 2), mask_of(0), classes=THREE))
    assert checked.notes[1:] == (
        "no mask holds class 1 (rust)",
        "1 of 2 masks are all background",
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [("auto", [1 / 32, 0, 0]), ("dark", [31 / 32, 1, 1])],
)
def test_two_encodings_are_refused_with_a_way_for_pixels_that_do_not_count(
    tmp_path, values, expected
):
    """A 1-bit mask, an 8-bit one, and one that is empty in both."""
    masks = mask_of(0, 1) > 0, mask_of(0, 255), mask_of(0)
    listing = dataclasses.replace(listing_of(tmp_path, *masks), mask_values=values)
    error = refusal(listing)
    assert error.found == "1 masks hold 1 (r0), 1 others 255 (r1), and none both"
    palette = re.search(r'palette="(.+?)"', error.fix).group(1)
    assert ("foreground=bright" in error.fix) == (values == "dark")
    listing = dataclasses.replace(listing, mask_values="auto")
    checked = run(listing, palette=ast.literal_eval(palette))
    assert [item.foreground for item in checked.records] == expected


def test_masks_that_are_said_to_hold_ids_may_hold_1_or_255(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 1), mask_of(0, 255))
    checked = run(dataclasses.replace(listing, mask_values="ids"))
    assert checked.records[1].class_pixels == (31 * 32, 0)


BLACK, WHITE = [0, 0, 0], [255, 255, 255]


@pytest.mark.parametrize(
    ("first", "values", "is_refused"),
    [(WHITE, "auto", True), (BLACK, "auto", False), (WHITE, "ids", False)],
)
def test_palettes_in_two_orders_are_refused(tmp_path, first, values, is_refused):
    listing = listing_of(tmp_path, *[mask_of(0, 1)] * 3)
    for index, colour in ((0, BLACK), (1, first)):
        picture = Image.fromarray(mask_of(0, 1))
        picture.putpalette(colour + (WHITE if colour == BLACK else BLACK))
        picture.save(listing.records[index].mask)
    listing = dataclasses.replace(listing, mask_values=values)
    if is_refused:
        assert "black in 1 masks, and another colour in 1: r1" in refusal(listing).found
    else:
        assert [item.foreground for item in run(listing).records] == [1 / 32] * 3


def test_ignored_pixels_are_no_foreground_and_no_share(tmp_path):
    mask = mask_of(0, 1)
    mask[16:] = 255
    checked = run(listing_of(tmp_path, mask))
    assert checked.records[0].foreground == 1 / 16


# Broken files and pairs.


def break_files(listing):
    """Cuts image 0 and mask 1, empties image 2, makes image 3 text, removes image 4."""
    image, mask = listing.records[0].image, listing.records[1].mask
    image.write_bytes(image.read_bytes()[:900])
    mask.write_bytes(mask.read_bytes()[:50])
    listing.records[2].image.write_bytes(b"")
    listing.records[3].image.write_text("not a picture\n" * 20)
    listing.records[4].image.unlink()


def test_all_broken_files_are_named_at_once_with_the_way_out(tmp_path):
    listing = listing_of(tmp_path, *[mask_of(0, 255)] * 6)
    break_files(listing)
    error = refusal(listing)
    assert error.found.startswith("5 broken: ")
    for text in (
        f"{tmp_path / '0.png'} is cut short or damaged",
        f"{tmp_path / '1_mask.png'} is cut short or damaged",
        f"{tmp_path / '2.png'} is empty (0 bytes)",
        f"{tmp_path / '3.png'} is not an image of a known format",
        f"{tmp_path / '4.png'} cannot be read (No such file or directory)",
    ):
        assert text in error.found
    assert "--config.data.on_corrupt=skip" in error.fix


def test_skip_leaves_broken_records_out_and_lists_them(tmp_path):
    listing = listing_of(tmp_path, *[mask_of(0, 255)] * 6)
    break_files(listing)
    checked = run(listing, on_corrupt="skip")
    assert [item.record.id for item in checked.records] == ["r5"]
    assert [name for name, _ in checked.skipped] == ["r0", "r1", "r2", "r3", "r4"]
    assert checked.skipped[2] == ("r2", f"{tmp_path / '2.png'} is empty (0 bytes)")
    (note,) = (note for note in checked.notes if "data.on_corrupt" in note)
    assert note.startswith("WARNING: 5 images are left out")
    assert note.endswith("r0, r1, r2, r3, r4")


def test_a_set_of_broken_files_only_is_refused(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255))
    listing.records[0].image.write_bytes(b"")
    error = refusal(listing, on_corrupt="skip")
    assert error.expected == "at least one record that can be opened"


def test_pairs_of_different_size_are_named_with_both_sizes(tmp_path):
    masks = (
        mask_of(0, 255),
        mask_of(0, 255, size=(16, 32)),
        mask_of(0, 255, size=(8, 9)),
    )
    error = refusal(listing_of(tmp_path, *masks))
    assert error.found == (
        "2 pairs differ: r1: image 32 x 32, mask 16 x 32, r2: image 32 x 32, mask 8 x 9"
    )


def test_an_exif_rotated_image_with_a_mask_as_stored_is_explained(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255, size=(16, 32)))
    tags = Image.Exif()
    tags[0x0112] = 6
    save(listing.records[0].image, NOISE[:16], exif=tags)
    found = refusal(listing).found
    assert "image 32 x 16 (EXIF-rotated), mask 16 x 32" in found


def test_an_image_without_label_and_mask_is_refused(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255), None)
    error = refusal(with_file(listing, 1, label=None))
    assert error.found == "neither for 1 images: r1"


# Notes, labels, identity.


def test_odd_images_are_counted_in_notes(tmp_path):
    listing = listing_of(tmp_path, *[None] * 4)
    grey = NOISE[..., 0]
    save(listing.records[0].image, grey.astype(np.uint16) * 200)
    save(listing.records[1].image, grey)
    save(listing.records[2].image, np.concatenate([NOISE, NOISE[..., :1]], -1))
    checked = run(listing)
    assert checked.encoding is None
    assert checked.notes == (
        "1 of 4 images are 16-bit: scaled to 8 bit by /257 (colour: upper byte)",
        "1 of 4 images have transparency: the alpha channel is dropped",
        "2 of 4 images are grey: repeated where three channels are asked for",
        "1 images like another one (saved again, or another exposure): r1 like r0",
    )


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ((4095, 900), 16),
        ((1023,), 64),
        ((16383,), 4),
        ((4095, 16384), None),
        ((0,), None),
    ],
)
def test_camera_values_in_the_lower_bits_are_warned_of(tmp_path, values, factor):
    listing = listing_of(tmp_path, *[None] * (len(values) + 1))
    for record, value in zip(listing.records, values, strict=False):
        deep = NOISE[..., 0].astype(np.uint32) * value // 255
        save(record.image, deep.astype(np.uint16))
    warnings = [note for note in run(listing).notes if note.startswith("WARNING")]
    if factor is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert f"is over {max(values)}, of 65535" in warning
        assert warning.endswith(f"multiply their values by {factor}")


def test_a_missing_label_comes_from_the_mask_and_a_given_one_stays(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255), mask_of(0), mask_of(0, 255), None)
    checked = run(with_file(listing, 2, label=1))
    assert [item.label for item in checked.records] == [1, 0, 1, 0]
    assert [item.foreground for item in checked.records] == [1 / 32, 0.0, 1 / 32, None]


def test_labels_that_the_mask_contradicts_are_refused_or_left_out(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255), mask_of(0), mask_of(0, 255), None)
    listing = with_file(with_file(listing, 1, label=1), 2, label=0)
    error = refusal(listing)
    assert "2 contradict them: r1: its label is a defect, and its mask is all" in (
        error.found
    )
    assert "r2: its label is clean, and its mask has foreground" in error.found
    assert "--config.data.on_corrupt=skip" in error.fix
    checked = run(listing, on_corrupt="skip")
    assert [item.record.id for item in checked.records] == ["r0", "r3"]
    assert [name for name, _ in checked.skipped] == ["r1", "r2"]
    assert "2 images are left out, their masks contradict the label: r1, r2" in (
        checked.notes
    )


def test_a_darker_copy_is_named_and_remembered(tmp_path):
    listing = listing_of(tmp_path, None, None, None)
    pixels = np.random.default_rng(7).integers(0, 256, (12, 16), np.uint8)
    picture = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
    picture.save(listing.records[0].image)
    picture.point(lambda value: value // 2 + 9).save(listing.records[2].image)
    checked = run(listing)
    assert checked.notes[-1] == (
        "1 images like another one (saved again, or another exposure): r2 like r0"
    )
    assert [item.looks_like for item in checked.records] == ["", "", "r0"]
    assert from_json(json.loads(json.dumps(to_json(checked))), listing) == checked


def test_identical_images_and_contradictory_labels_are_named(tmp_path):
    listing = listing_of(tmp_path, None, None, None)
    data = listing.records[0].image.read_bytes()
    for record in listing.records[1:]:
        record.image.write_bytes(data)
    assert run(listing).notes == (
        "2 images are byte-identical copies of others: r1, r2",
    )
    assert run(with_file(listing, 1, label=1)).notes[1] == (
        "1 groups of byte-identical images have contradictory labels: "
        "r0 (0) = r1 (1) = r2 (0)"
    )


def test_records_carry_size_and_hashes_of_the_bytes(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255, size=(8, 12)), None)
    save(listing.records[0].image, NOISE[:8, :12])
    first, second = run(listing).records
    assert first.size == (8, 12)
    assert second.size == (32, 32)
    image, mask = listing.records[0].image, listing.records[0].mask
    assert first.image_sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert first.mask_sha256 == hashlib.sha256(mask.read_bytes()).hexdigest()
    assert second.mask_sha256 == ""


def test_progress_gets_every_record_and_the_total(tmp_path):
    listing, seen = listing_of(tmp_path, mask_of(0, 255), None), []

    def progress(iterable, total, description):
        for item in iterable:
            seen.append((total, description))
            yield item

    check(listing, palette=(), on_corrupt="fail", workers=1, progress=progress)
    assert seen == [(2, "Checking images and masks")] * 2


@pytest.mark.parametrize("palette", [(), ("#000000", "#ffffff")])
def test_checked_survives_json(tmp_path, palette):
    listing = listing_of(tmp_path, mask_of(0, 255), None, mask_of(0, 255))
    listing.records[2].image.write_bytes(b"")
    checked = run(listing, palette=palette, on_corrupt="skip")
    assert from_json(json.loads(json.dumps(to_json(checked))), listing) == checked
    plain = listing_of(tmp_path, None)
    images_only = run(plain)
    assert from_json(json.loads(json.dumps(to_json(images_only))), plain) == images_only


def test_fingerprint_changes_with_any_file_or_label(tmp_path):
    listing = listing_of(tmp_path, mask_of(0, 255), None)
    before = fingerprint(listing)
    assert fingerprint(listing) == before
    assert fingerprint(with_file(listing, 1, label=1)) != before
    assert fingerprint(with_file(listing, 1, group="other")) != before
    assert fingerprint(with_file(listing, 1, split="val")) != before
    assert fingerprint(with_file(listing, 1, source="deck")) != before
    for change in (DARK, dict(max_blank=0.5), dict(skipped=(("a", "why"),))):
        assert fingerprint(dataclasses.replace(listing, **change)) != before
    mask = listing.records[0].mask
    os.utime(mask, ns=(0, 12345))
    touched = fingerprint(listing)
    assert touched != before
    mask.write_bytes(mask.read_bytes() + b"more")
    os.utime(mask, ns=(0, 12345))
    assert fingerprint(listing) != touched
    mask.unlink()
    assert fingerprint(listing) not in (before, touched)


def test_content_hash_follows_content_and_not_time_or_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = listing_of(tmp_path / "a", mask_of(0, 255), None)
    second = listing_of(tmp_path / "b", mask_of(0, 255), None)
    os.utime(second.records[0].image, ns=(0, 12345))
    before = run(first).content_hash
    assert len(before) == 64
    assert run(second).content_hash == before
    assert run(with_file(second, 1, label=1)).content_hash != before
    assert run(with_file(second, 1, group="other")).content_hash != before
    assert run(with_file(second, 1, split="val")).content_hash != before
    save(second.records[0].mask, mask_of(255, 0))
    assert run(second).content_hash != before


def test_all_kinds_of_problems_are_told_at_once(tmp_path):
    listing = listing_of(
        tmp_path, mask_of(0, 1), mask_of(0, 1, size=(16, 32)), mask_of(0, 1, 7)
    )
    listing.records[0].image.write_bytes(b"")
    error = refusal(listing)
    for number, text in enumerate(("1 broken: ", "1 pairs differ: r1", "values"), 1):
        assert f"\n  {number}. " in error.found
        assert text in error.found.split(f"\n  {number}. ")[1].split("\n")[0]
    assert error.found.startswith("3 things:")
    assert "1. --config.data.on_corrupt=skip" in error.fix
    assert "--config.data.classes=" in error.fix.split("\n  3. ")[1]
