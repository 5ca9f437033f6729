"""Every picture comes out as RGB with the right pixels, or as a `BadImageError` that says what is wrong."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sae_lens_meme.errors import BadImageError
from sae_lens_meme.images import FORMATS, MAX_PIXELS, open_image


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = open_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(size: tuple[int, int] = (24, 16), seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_agrees_with_pillow(format):
    data = encode(noise(), format)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_path_and_bytes_agree(tmp_path):
    data = encode(noise())
    (tmp_path / "ünicode 猫.png").write_bytes(data)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "ünicode 猫.png")), pixels(data))


def test_sixteen_bits_are_scaled_not_clipped():
    grey = np.random.default_rng(0).integers(0, 65536, (32, 32)).astype(np.uint16)
    got = pixels(encode(Image.fromarray(grey)))
    np.testing.assert_array_equal(got[..., 0], np.rint(grey / 257).astype(np.uint8))
    assert abs(got.mean() - grey.mean() / 257) < 0.5


def test_sixteen_bits_with_a_transparent_value():
    grey = np.array([[1000, 60000]], dtype=np.uint16)
    got = pixels(encode(Image.fromarray(grey), transparency=1000))
    assert got[0, :, 0].tolist() == [255, 233]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_hidden_pixels_stay_hidden(mode):
    image = Image.new(mode, (2, 1), (0,) * len(mode))  # black, fully transparent
    image.putpixel((1, 0), (*(40,) * (len(mode) - 1), 128))
    expected = round((40 * 128 + 255 * 127) / 255)
    got = pixels(encode(image))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert abs(int(got[0, 1, 0]) - expected) <= 1


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 200]]]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_plain_modes_agree_with_pillow(mode):
    image = noise().convert(mode)
    np.testing.assert_array_equal(pixels(encode(image)), np.asarray(image.convert("RGB")))


def test_cmyk():
    got = pixels(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert got[0, 0, 0] > 240
    assert got[0, 0, 1:].max() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3)
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = pixels(encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes()))
    np.testing.assert_array_equal(got[..., 0], upright)


def test_damaged_exif_does_not_cost_the_pixels():
    data = encode(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(data), pixels(encode(noise(), "JPEG")))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(pixels(data)[0, 0].astype(int) - [255, 0, 0]).max() <= 3


def test_one_pixel():
    assert pixels(encode(Image.new("RGB", (1, 1), (9, 8, 7)))).tolist() == [[[9, 8, 7]]]


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN_CRC = bytearray(encode(noise()))
BROKEN_CRC[BROKEN_CRC.index(b"IEND") - 5] ^= 1  # of the pixel data: Pillow decodes it without a word

INVALID = [
    (b"", r"empty \(0 bytes\)"),
    (b"<!DOCTYPE html><html>404</html>", "is HTML"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "is PostScript"),
    (encode(noise(), "TIFF"), "is TIFF"),
    (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    (encode(noise())[:20], "is PNG with a damaged header"),
    (encode(noise(), "JPEG")[:20], "is JPEG with a damaged header"),
    (b"hello", "of an unknown kind"),
    (encode(noise((200, 200)), "JPEG")[:3000], "truncated after 3,000 bytes"),
    (encode(noise((200, 200)))[:3000], "truncated after 3,000 bytes|damaged"),
    (encode(noise((200, 200)), "WEBP")[:3000], "WEBP"),
    (encode(noise((200, 200)), "BMP")[:3000], "truncated after 3,000 bytes"),
    (bytes(BROKEN_CRC), "damaged .*checksum"),
    (png_header(10_000, 5_001), "10000 x 5001 pixels, over the limit of 50,000,000"),
    (png_header(20_000, 20_000), "over the limit"),
]


@pytest.mark.parametrize(("data", "message"), INVALID)
def test_refuses(data, message):
    with pytest.raises(BadImageError, match=message) as caught:
        open_image(data, name="img/a.png")
    assert "'img/a.png'" in str(caught.value)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_when_warnings_are_errors():
    with pytest.raises(BadImageError, match="over the limit"):
        open_image(png_header(10_000, 10_000))


def test_the_limit_itself_is_not_refused_from_the_header():
    with pytest.raises(BadImageError, match=r"truncated|damaged"):  # there are no pixels behind the header
        open_image(png_header(MAX_PIXELS // 1000, 1000))


def test_refuses_what_is_not_a_file(tmp_path):
    with pytest.raises(BadImageError, match="does not exist"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(BadImageError, match="not a file"):
        open_image(tmp_path)


def mutate(data: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        mutated[chance.randrange(len(mutated))] = chance.randrange(256)
    if chance.random() < 0.3:
        del mutated[chance.randrange(len(mutated)) :]
    return bytes(mutated)


def test_mutated_files_give_a_picture_or_a_bad_image_error():
    seeds = [encode(noise((8, 8)), format) for format in FORMATS]
    seeds.append(encode(noise((8, 8)).convert("RGBA")))
    seeds.append(encode(noise((8, 8)).convert("P"), "PNG", transparency=0))
    chance, outcomes, messages = random.Random(0), {True: 0, False: 0}, []
    for i in range(3000):
        try:
            good = open_image(mutate(seeds[i % len(seeds)], chance)).mode == "RGB"
        except BadImageError as error:
            good = False
            messages.append(str(error))
        outcomes[good] += 1
    assert outcomes[False] == len(messages)  # never a picture that is not RGB
    assert min(outcomes.values()) > 300  # both ends were reached
    assert not any("\n" in message for message in messages)
