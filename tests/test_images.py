"""Pixels of every kind of file, against hand-made arrays and EXIF's own definition."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import images, mask_values
from jaxseg.data.encoding import count_values
from jaxseg.data.images import UnreadableImage
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.errors import InputError

ORIENTATION = 0x0112
# An F, which no turn or mirror maps to itself; EXIF names where the rows start.
UPRIGHT = np.uint8([[9, 9, 9], [9, 0, 0], [9, 9, 0], [9, 0, 0], [9, 0, 0]]) * 20
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: UPRIGHT.T[::-1],  # row 0 of the file is the right side of the picture
    7: UPRIGHT[::-1, ::-1].T,
    8: UPRIGHT.T[:, ::-1],  # row 0 of the file is the left side
}


def encode(pixels, file_format="PNG", mode=None, **options) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture = picture.convert(mode) if mode else picture
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_palette(indices, colours) -> bytes:
    picture = Image.fromarray(np.uint8(indices))
    picture.putpalette([channel for colour in colours for channel in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def test_colour_png_is_decoded_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.decode_image(encode(pixels), 3), pixels)


def test_grey_is_repeated_for_three_channels_and_kept_for_one():
    data = encode(UPRIGHT)
    assert images.decode_image(data, 1).shape == (5, 3, 1)
    np.testing.assert_array_equal(images.decode_image(data, 1)[..., 0], UPRIGHT)
    for channel in range(3):
        decoded = images.decode_image(data, 3)
        np.testing.assert_array_equal(decoded[..., channel], UPRIGHT)
    assert images.open_picture(data)[1].notes == ("grey",)


def test_colour_becomes_luma_for_one_channel():
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    data = encode(np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]))
    assert images.decode_image(data, 1).ravel().tolist() == [76, 150, 29]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(file_format):
    data = encode(np.uint16([[0, 257, 385, 386, 32768, 65535]]), file_format)
    _, facts = images.open_picture(data)
    assert facts.mode == "I;16"
    assert facts.notes == ("16-bit", "grey")
    # 385 / 257 = 1.498, 386 / 257 = 1.502, 32768 / 257 = 127.502
    assert images.decode_image(data, 1).ravel().tolist() == [0, 1, 1, 2, 128, 255]
    assert images.decode_image(data, 3)[0, 3].tolist() == [2, 2, 2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "P", "RGBA", "CMYK"])
def test_a_large_picture_becomes_an_array_by_strips(monkeypatch, mode, channels):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        pixels = rng.integers(0, 65536, (23, 17)).astype(np.uint16)
        picture = Image.fromarray(pixels)
    else:
        colours = rng.integers(0, 256, (23, 17, 3)).astype(np.uint8)
        picture = Image.fromarray(colours).convert(mode)
    data = io.BytesIO()
    picture.save(data, "TIFF")
    whole = images.decode_image(data.getvalue(), channels)
    monkeypatch.setattr(images, "STRIP_PIXELS", 4 * 17)  # 23 is no multiple of 4
    strips = images.decode_image(data.getvalue(), channels)
    np.testing.assert_array_equal(strips, whole)
    assert strips.shape == (23, 17, channels)
    assert strips[-1].any()


def test_palette_image_gives_its_colours():
    data = encode_palette([[0, 1], [2, 0]], [(1, 2, 3), (200, 100, 0), (0, 0, 255)])
    expected = [[[1, 2, 3], [200, 100, 0]], [[0, 0, 255], [1, 2, 3]]]
    assert images.decode_image(data, 3).tolist() == expected
    assert images.open_picture(data)[1].notes == ("palette", "palette: 0 is not black")


def test_transparent_palette_is_decoded_without_a_warning():
    picture = Image.fromarray(np.uint8([[0, 1]]))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=bytes([0, 128]))
    decoded = images.decode_image(buffer.getvalue(), 3)
    assert decoded.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_alpha_is_dropped_not_blended():
    data = encode(np.uint8([[[10, 20, 30, 0], [40, 50, 60, 128]]]))
    assert images.decode_image(data, 3).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert images.open_picture(data)[1].notes == ("alpha",)


def test_cmyk_jpeg_becomes_rgb():
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    data = encode(pixels, "JPEG", mode="CMYK", quality=100)
    assert "CMYK" in images.open_picture(data)[1].notes
    difference = images.decode_image(data, 3).astype(int) - pixels
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_turns_image_and_mask_upright_alike(orientation):
    big = np.kron(STORED[orientation], np.ones((16, 16), np.uint8))
    upright = np.kron(UPRIGHT, np.ones((16, 16), np.uint8))
    options = {"exif": exif(orientation)}
    jpeg = encode(big, "JPEG", quality=100, subsampling=0, **options)
    decoded = images.decode_image(jpeg, 1)[..., 0]
    assert np.abs(decoded.astype(int) - upright).max() <= 2
    mask = encode(STORED[orientation], "PNG", **options)
    np.testing.assert_array_equal(images.decode_mask(mask), UPRIGHT)
    _, facts = images.open_picture(jpeg)
    assert facts.size == upright.shape
    assert ("EXIF-rotated" in facts.notes) == (orientation != 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        *({"subsampling": k, "quality": q} for k in range(3) for q in (30, 75, 100)),
        {"progressive": True},
        {"keep_rgb": True},
        {"restart_marker_blocks": 2},
        {"optimize": True},
        *({"orientation": k} for k in STORED),
    ],
    ids=str,
)
def test_the_faster_decoder_finds_the_same_pixels(monkeypatch, options, channels):
    if "orientation" in options:
        options = {"exif": exif(options["orientation"])}
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    noise = rng.integers(0, 40, (111, 79, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:111, :79] // 2 + noise
    data = encode(pixels if channels == 3 else pixels[..., 0], "JPEG", **options)
    with monkeypatch.context() as patch:
        patch.setattr(images, "simplejpeg", None)
        wanted = images.decode_image(data, channels)
    monkeypatch.setattr(images, "open_picture", None)  # Pillow decodes nothing
    np.testing.assert_array_equal(images.decode_image(data, channels), wanted)


def test_tiff_orientation_is_applied_once():
    data = encode(STORED[6], "TIFF", exif=exif(6))
    np.testing.assert_array_equal(images.decode_mask(data), UPRIGHT)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_cut_file_is_found_by_every_reader(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, file_format)
    half = data[: len(data) // 2]
    for read in (images.open_picture, images.decode_mask, decode):
        with pytest.raises(UnreadableImage, match="is cut short or damaged"):
            read(half)


def decode(data):
    return images.decode_image(data, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"notes about cracks\n" * 9, "is not an image of a known format"),
        (encode(np.zeros((2, 2), np.float32), "TIFF"), "floating-point pixels"),
        (encode(np.int32([[0, 70000]]), "TIFF"), "values 0..70000"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        images.open_picture(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_decompression_bomb_is_refused(monkeypatch, file_format):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(np.zeros((15, 15, 3), np.uint8), file_format)
    for read in (images.open_picture, decode):
        with pytest.raises(UnreadableImage, match="over 200 pixels: cut it into tiles"):
            read(data)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_the_largest_16_bit_value_is_kept(order):
    deep = np.array([[0, 3300], [4095, 7]], order)
    _, facts = images.open_picture(encode(deep, "TIFF"))
    assert facts.mode == {"<u2": "I;16", ">u2": "I;16B"}[order]
    assert facts.largest == 4095
    assert images.open_picture(encode(deep.astype(np.uint8)))[1].largest == 0


def test_16_bit_colour_is_noted():
    # A 1 x 1 PNG of 16-bit RGB, written by hand as Pillow cannot.
    import struct
    import zlib

    def chunk(name, body):
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x1234, 0xFFFF, 0))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    facts = images.open_picture(data)[1]
    assert (facts.notes, facts.largest) == (("16-bit",), 0xFFFF)
    assert images.decode_image(data, 3).tolist() == [[[0x12, 0xFF, 0]]]
    with pytest.raises(UnreadableImage, match="16-bit colour"):
        images.decode_mask(data)


def test_image_resize_averages_when_it_reduces():
    image = np.zeros((4, 4, 1), np.uint8)
    image[::2, ::2] = 200  # every 2 x 2 block has the mean 50
    resized = images.resize_image(image, (1, 1))
    assert resized.shape == (1, 1, 1)
    assert resized.item() == 50


def test_image_resize_is_bilinear_when_it_enlarges():
    image = np.uint8([[[0, 100, 200], [80, 100, 0]]])
    resized = images.resize_image(image, (1, 4))
    # Pixel centres at 1/8, 3/8, 5/8, 7/8 of the width: weights 0, 1/4, 3/4, 1.
    assert resized[0, :, 0].tolist() == [0, 20, 60, 80]
    assert resized[0, :, 1].tolist() == [100] * 4
    assert resized[0, :, 2].tolist() == [200, 150, 50, 0]


def test_mask_resize_makes_no_new_values():
    mask = np.uint8([[0, 2], [255, 7]])
    resized = images.resize_mask(mask, (4, 6))
    np.testing.assert_array_equal(resized, mask.repeat(2, 0).repeat(3, 1))


def test_nothing_is_copied_when_the_size_fits():
    image, mask = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
    assert images.resize_image(image, (3, 4)) is image
    assert images.resize_mask(mask, (3, 4)) is mask


VALUES = np.uint8([[0, 1], [2, 255]])


@pytest.mark.parametrize(
    "data",
    [
        encode(VALUES),
        encode(VALUES, mode="RGB"),
        encode(VALUES, mode="LA"),
        encode(VALUES, mode="RGBA"),
        encode(VALUES, "BMP"),
        encode(VALUES, "TIFF"),
        encode(VALUES.astype(np.uint16)),
        encode(VALUES.astype(np.uint16) * 257),
        encode_palette(VALUES, [(i, 255 - i, 7) for i in range(256)]),
    ],
    ids=[
        "grey",
        "rgb",
        "la",
        "rgba",
        "bmp",
        "tiff",
        "16-bit",
        "stretched-16-bit",
        "palette",
    ],
)
def test_mask_values_survive_every_way_of_storing_them(data):
    mask = images.decode_mask(data)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, VALUES)


def test_1_bit_mask_gives_0_and_1():
    mask = images.decode_mask(encode(np.array([[False, True]])))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1]]


def test_colour_coded_mask_keeps_three_channels():
    pixels = np.uint8([[[0, 0, 0], [255, 0, 0]]])
    np.testing.assert_array_equal(images.decode_mask(encode(pixels)), pixels)


def test_16_bit_ids_over_255_are_refused():
    with pytest.raises(UnreadableImage, match="16-bit values up to 1001"):
        images.decode_mask(encode(np.uint16([[0, 1001]])))


def test_one_channel_encodings_by_their_rule():
    raw = np.uint8([[0, 1, 127, 128, 255]])
    ids = mask_values.encode_mask(raw, MaskEncoding("ids"))
    assert ids.tolist() == [[0, 1, 127, 128, 255]]
    threshold = mask_values.encode_mask(raw, MaskEncoding("threshold"))
    assert threshold.tolist() == [[0, 0, 0, 1, 1]]
    binary = mask_values.encode_mask(np.uint8([[0, 255]]), MaskEncoding("binary"))
    assert binary.dtype == np.uint8
    assert binary.tolist() == [[0, 1]]


def test_binary_encoding_refuses_other_values():
    with pytest.raises(InputError, match=r"0 and 255\nfound:    1, 254\n"):
        mask_values.encode_mask(np.uint8([[0, 1, 254, 255]]), MaskEncoding("binary"))


def test_palette_encoding_gives_the_place_of_a_colour():
    encoding = MaskEncoding("palette", ("#ff0000", "#000000", "#0000ff"))
    raw = np.uint8([[[0, 0, 255], [255, 0, 0], [0, 0, 0]]])
    assert mask_values.encode_mask(raw, encoding).tolist() == [[2, 0, 1]]
    # A mask of black only comes as one channel.
    assert mask_values.encode_mask(np.zeros((1, 2), np.uint8), encoding).tolist() == [
        [1, 1]
    ]


@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 255, 255), (0, 0, 1)])
def test_palette_encoding_names_an_unknown_colour(colour):
    encoding = MaskEncoding("palette", ("#000000", "#ff0000"))
    name = "#{:02x}{:02x}{:02x}".format(*colour)
    with pytest.raises(InputError, match=f"#000000, #ff0000\nfound:    {name}\n"):
        mask_values.encode_mask(np.uint8([[[0, 0, 0], colour]]), encoding)


def test_a_coloured_mask_does_not_pass_as_grey():
    with pytest.raises(InputError, match="colour-coded"):
        mask_values.encode_mask(
            np.zeros((1, 1, 3), np.uint8), MaskEncoding("threshold")
        )


def test_values_are_counted_exactly():
    raw = np.random.default_rng(1).integers(0, 4, (8, 9), dtype=np.uint8)
    counted = count_values(raw)
    assert counted.values.tolist() == [0, 1, 2, 3]
    assert counted.counts.tolist() == [(raw == value).sum() for value in range(4)]
    coloured = count_values(np.stack([raw, raw * 0, raw * 0], -1))
    assert coloured.values.tolist() == [[value, 0, 0] for value in range(4)]
    assert coloured.counts.tolist() == counted.counts.tolist()


def test_class_counts_keep_ignored_pixels_apart():
    counted = count_values(np.uint8([[0, 1, 1, 2, 255, 255]]))
    counts = counted.class_counts(MaskEncoding("ids"), 3)
    assert counts.tolist() == [1, 2, 1, 2]


def test_more_than_64_colours_are_not_counted_to_the_end():
    raw = np.stack([np.arange(65), np.zeros(65), np.zeros(65)], -1)[None]
    raw = np.concatenate([raw, raw[:, 3:4]], axis=1).astype(np.uint8)
    counted = count_values(raw)
    assert not counted.complete
    assert len(counted.values) == 64
    assert counted.counts.max() == 2
