"""Images of every colour mode and format become the right pixels; what is no whole image is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from src.errors import BadExampleError
from src.tasks import image
from src.tasks.image import Encoder, Options

LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "GIF": {}}
LOSSY = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}}
FORMATS = {
    "1": ["PNG", "BMP", "TIFF", "GIF"],
    "L": ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"],
    "LA": ["PNG", "TIFF"],
    "P": ["PNG", "BMP", "TIFF", "GIF"],
    "RGB": ["JPEG", "PNG", "WEBP", "BMP", "TIFF"],
    "RGBA": ["PNG", "WEBP", "TIFF"],
    "CMYK": ["JPEG", "TIFF"],
    "YCbCr": ["JPEG", "TIFF"],
    "I;16": ["PNG", "TIFF"],
}
MODES = [(mode, kind) for mode, kinds in FORMATS.items() for kind in kinds]
ORIENTATION = 0x112


@pytest.fixture(scope="module")
def photo(photograph) -> Image.Image:
    """A real RGB photograph of 40 × 32 pixels."""
    return photograph("temple", 0).resize((40, 32))


def stored(picture: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **{**LOSSLESS.get(kind, {}), **LOSSY.get(kind, {})} | options)
    return buffer.getvalue()


def encoder(height=32, width=40, channels=3, **options) -> Encoder:
    return Encoder(Options(size=[height, width], channels=channels, **options))


def in_mode(photo: Image.Image, mode: str) -> Image.Image:
    """The photograph in a colour mode."""
    if mode == "P":
        return photo.quantize(64)
    if mode == "I;16":
        return Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    return photo.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mode", "kind"), MODES)
def test_every_colour_mode_of_every_format_gives_the_right_pixels(photo, mode, kind, channels):
    picture = in_mode(photo, mode)
    array = encoder(channels=channels).encode(stored(picture, kind))
    assert (array.shape, array.dtype) == ((32, 40, channels), np.uint8)
    grey = mode in ("1", "L", "LA", "I;16")
    seen = photo.convert("1" if mode == "1" else "L").convert("L") if grey else picture.convert("RGB")
    expected = np.asarray(seen.convert("L" if channels == 1 else "RGB")).reshape(array.shape)
    error = np.abs(array.astype(int) - expected)
    assert error.mean() < (4 if kind in LOSSY else 0.01)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_rather_than_clipped(kind):
    values = np.array([[0, 256, 257, 32896, 65535]], np.uint16)
    array = encoder(1, 5, 1).encode(stored(Image.fromarray(values), kind))
    assert array.ravel().tolist() == [0, 0, 1, 128, 255]


TRANSPARENT = {
    "RGBA PNG": stored(Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "PNG"),
    "RGBA WebP": stored(Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "WEBP", exact=True),
    "LA PNG": stored(Image.new("LA", (8, 8), (10, 0)), "PNG"),
    "palette PNG": stored(Image.new("RGB", (8, 8), (1, 2, 3)).quantize(2), "PNG", transparency=0),
    "palette PNG of several alphas": stored(
        Image.new("RGB", (8, 8), (1, 2, 3)).quantize(2), "PNG", transparency=b"\0"
    ),
    "palette GIF": stored(Image.new("RGB", (8, 8), (1, 2, 3)).quantize(2), "GIF", transparency=0),
    "grey PNG with one transparent grey": stored(Image.new("L", (8, 8), 7), "PNG", transparency=7),
    "RGB PNG with one transparent colour": stored(
        Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)
    ),
}


@pytest.mark.parametrize("raw", TRANSPARENT.values(), ids=TRANSPARENT)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(raw, channels):
    assert (encoder(8, 8, channels).encode(raw) == 255).all()


def test_half_transparent_black_is_grey():
    assert (encoder(8, 8).encode(stored(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")) == 127).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_photograph_taken_sideways_is_turned_upright(photo, kind, orientation, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    raw = stored(photo.transpose(turn), kind, exif=exif)
    assert np.abs(encoder().encode(raw).astype(int) - np.asarray(photo)).mean() < 4


def test_the_digest_is_of_the_pixels_whatever_the_format(photo):
    for mode, kinds in {"RGB": ["PNG", "BMP", "TIFF", "WEBP"], "L": ["PNG", "BMP", "TIFF"]}.items():
        digests = {image.digest(stored(photo.convert(mode), kind)) for kind in kinds}
        assert len(digests) == 1
        (digest,) = digests
        assert len(digest) == 32
        assert int(digest, 16)


def test_the_digest_differs_for_one_pixel_and_for_another_shape(photo):
    changed = photo.copy()
    changed.putpixel((3, 4), (255, 0, 255))
    reshaped = Image.frombytes("RGB", (32, 40), photo.tobytes())
    assert len({image.digest(stored(each, "PNG")) for each in (photo, changed, reshaped)}) == 3


def test_an_animation_is_its_first_frame():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    raw = stored(red, "GIF", save_all=True, append_images=[blue])
    assert encoder(8, 8).encode(raw)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("aspect", "top_left", "middle"), [("crop", 255, 255), ("pad", 0, 255), ("stretch", 0, 255)]
)
def test_an_image_of_another_shape_is_cropped_padded_or_stretched(aspect, top_left, middle):
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255  # the middle third
    array = encoder(10, 10, 1, aspect=aspect).encode(stored(Image.fromarray(wide), "PNG"))
    assert (array[0, 0, 0], array[5, 5, 0]) == (top_left, middle)
    # Padded, the picture lies across the middle; stretched, its bright third fills every row's middle.
    assert array[0, 5, 0] == (0 if aspect == "pad" else 255)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # it warns before it gives up
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_truncated_image_is_refused_with_a_reason(photo, kind):
    raw = stored(photo, kind)
    for share in (0.02, 0.3, 0.6, 0.9):
        cut = raw[: int(len(raw) * share)]
        for function in (image.digest, encoder().encode):
            with pytest.raises(BadExampleError) as error:
                function(cut)
            assert str(error.value).startswith(("damaged image: ", "not an image in a known format"))


BAD = {
    "text": (b"this is not an image", "not an image in a known format"),
    "empty": (b"", "empty"),
    "nothing": (None, "expected an image, found None"),
    "a number": (7, "expected an image, found 7"),
    "PostScript, a program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "not an image in a known format",
    ),
    "a web page": (b"<!DOCTYPE html><title>404</title>", "not an image in a known format"),
    "over 16 bits": (
        stored(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"),
        "pixels of over 16 bits",
    ),
    "fractions": (stored(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "pixels are floating-point"),
}


@pytest.mark.parametrize(("raw", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_image_is_refused_with_a_reason(raw, reason):
    with pytest.raises(BadExampleError) as error:
        image.digest(raw)
    assert str(error.value).startswith(reason)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    bomb = stored(Image.new("1", (9000, 9000)), "PNG")
    assert len(bomb) < 20_000
    with pytest.raises(BadExampleError, match="9000 × 9000 pixels, expected at most 80,000,000 in all"):
        image.digest(bomb)
    # Beyond 179 million pixels, Pillow itself refuses.
    with pytest.raises(BadExampleError, match="decompression bomb"):
        image.digest(stored(Image.new("1", (14000, 14000)), "PNG"))


def test_damaged_bytes_never_raise_anything_else(photo):
    draw = np.random.default_rng(0)
    refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        whole = stored(photo, kind)
        for _ in range(60):
            damaged = bytearray(whole)
            for position in draw.integers(len(damaged), size=4):
                damaged[position] = draw.integers(256)
            try:
                image.digest(bytes(damaged))
            except BadExampleError:
                refused += 1
    assert refused > 100


def test_a_saved_encoder_comes_back(photo, tmp_path):
    first = Encoder.learn([], Options(size=[20, 24], channels=1, aspect="pad"))
    first.save(tmp_path)
    second = Encoder.load(tmp_path)
    assert (second.shape, second.dtype) == ((20, 24, 1), "uint8")
    raw = stored(photo, "PNG")
    assert np.array_equal(first.encode(raw), second.encode(raw))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoded_image_can_be_drawn(photo, channels):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    array = encoder(channels=channels).encode(stored(photo, "PNG"))
    encoder(channels=channels).draw(axes, array)
    assert np.array_equal(np.asarray(axes.images[0].get_array()), array.squeeze())
