"""The site's encoders in Chromium: the same arrays as Python's, byte for byte."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from browser_bench import chromium, serving  # type: ignore[import-not-found]
from PIL import Image
from playwright.sync_api import Page

from src import golden
from src.errors import BadExampleError
from src.files import read_json
from src.publish import site
from src.tasks import image, tabular, text, time_series

pytestmark = pytest.mark.slow

# Of raw inputs as golden.pack has them: an array in base64, or why there is none. JSON goes in and out,
# for Playwright takes long over many small values.
ENCODE = """async (text) => {
  const [task, saved, files, packed] = JSON.parse(text);
  const {load} = await import(new URL(`encoders/${task}.js`, location.href));
  const {Problem} = await import(new URL("errors.js", location.href));
  const encoder = await load(saved, async (name) => files[name]);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const encode = async (raw) => {
    try {
      const array = await encoder.encode(raw.base64 === undefined ? raw.text ?? raw.row : bytes(raw.base64));
      const found = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      return {bytes: btoa(Array.from(found, (byte) => String.fromCharCode(byte)).join(""))};
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return {problem: error.message};
    }
  };
  const results = [];
  for (const raw of packed) results.push(await encode(raw));
  return JSON.stringify(results);
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A document of the site's origin, which can import its modules; no model is needed."""
    with chromium() as browser, serving(site.SOURCES) as address:
        page = browser.new_page()
        page.goto(f"{address}errors.js")
        yield page


def encode(page: Page, task: str, saved: Any, raws: list[Any], files: Any = None) -> list[Any]:
    """Returns what the page's encoder makes of raw inputs: bytes of an array, or a sentence."""
    given = json.dumps([task, saved, files or {}, [golden.pack(raw) for raw in raws]])
    found = json.loads(page.evaluate(ENCODE, given))
    return [base64.b64decode(each["bytes"]) if "bytes" in each else each["problem"] for each in found]


def encode_in_python(encoder: Any, raws: list[Any]) -> list[Any]:
    """Returns the same by Python's encoder."""

    def one(raw: Any) -> Any:
        try:
            return np.ascontiguousarray(encoder.encode(raw), encoder.dtype).tobytes()
        except BadExampleError as error:
            return str(error)

    return [one(raw) for raw in raws]


@pytest.mark.parametrize(
    "options",
    [
        {"size": [28, 28], "channels": 1, "aspect": "crop"},
        {"size": [20, 45], "channels": 3, "aspect": "pad"},
    ],
)
def test_test_images_are_encoded_as_in_python(root, page, options):
    images = pq.read_table(root / "datasets/fashion/test.parquet").slice(0, 1000)["image"].to_pylist()
    raws = [each["bytes"] if isinstance(each, dict) else each for each in images]
    encoder = image.Encoder(image.Options(**options))
    assert encode(page, "image", options, raws) == encode_in_python(encoder, raws)


def written(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, kind: int, interlaced: bool, more: bytes = b"") -> bytes:
    """Writes a PNG of noise, of any depth and kind, with every filter."""
    draw = np.random.default_rng([depth, kind])
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    seven = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    lines = b""
    for left, top, across, down in seven if interlaced else [(0, 0, 1, 1)]:
        stride = -(-(-(-(width - left) // across) * samples * depth) // 8)
        for row in range(-(-(height - top) // down)):
            lines += bytes([row % 5]) + draw.bytes(stride)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def hard_images(photograph) -> dict[str, bytes]:
    """Of every kind that the page takes; what is no photograph is noise, in which no error hides."""
    picture = photograph("flower", 1)
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8)
    colours = Image.fromarray(noise[..., :3])
    found = {
        "palette": written(colours.quantize(100), "PNG"),
        "palette of 13": written(colours.quantize(13), "PNG"),
        "palette, one clear": written(colours.quantize(100), "PNG", transparency=3),
        "palette, all alphas": written(colours.quantize(60), "PNG", transparency=bytes(range(0, 240, 4))),
        "palette too short": png(23, 19, 8, 3, False, chunk(b"PLTE", bytes(range(30)))),
        "two levels": written(Image.fromarray(noise[..., 0] > 128), "PNG"),
        "BMP": written(colours, "BMP"),
        "BMP with palette": written(colours.quantize(9), "BMP"),
        "GIF, one clear": written(colours.quantize(50), "GIF", transparency=4),
        "GIF, grey": written(Image.fromarray(noise[..., 0]), "GIF"),
        "WebP without loss": written(colours, "WEBP", lossless=True),
        "JPEG": written(picture, "JPEG", quality=75),
        "JPEG, whole colours": written(picture, "JPEG", quality=90, subsampling=0),
        "JPEG, progressive": written(picture, "JPEG", progressive=True),
        "JPEG, grey": written(picture.convert("L"), "JPEG"),
        "WebP": written(picture, "WEBP", quality=70),
    }
    for depth, kind in [
        (1, 0),
        (2, 0),
        (4, 0),
        (8, 0),
        (16, 0),
        (8, 2),
        (16, 2),
        (8, 4),
        (16, 4),
        (8, 6),
        (16, 6),
    ]:
        for interlaced in (False, True):
            found[f"PNG {depth} bits, kind {kind}, {interlaced=}"] = png(23, 19, depth, kind, interlaced)
        if kind in (0, 2):
            clear = chunk(b"tRNS", b"\0\1" if kind == 0 else b"\0\1\0\2\0\3")
            found[f"PNG {depth} bits, kind {kind}, one clear"] = png(23, 19, depth, kind, False, clear)
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        found[f"PNG turned {turned}"] = written(colours, "PNG", exif=exif)
        found[f"JPEG turned {turned}"] = written(picture, "JPEG", exif=exif)
        found[f"WebP turned {turned}"] = written(colours, "WEBP", exif=exif, lossless=True)
    return found


@pytest.mark.parametrize(
    ("size", "channels", "aspect"),
    [
        ([24, 24], 1, "crop"),
        ([90, 31], 3, "crop"),
        ([16, 60], 3, "pad"),
        ([7, 70], 1, "stretch"),
        ([44, 45], 3, "stretch"),
    ],
)
def test_images_of_every_kind_are_encoded_as_in_python(page, hard_images, channels, size, aspect):
    options = {"size": size, "channels": channels, "aspect": aspect}
    encoder = image.Encoder(image.Options(**options))
    raws = [*hard_images.values()]
    both = zip(encode(page, "image", options, raws), encode_in_python(encoder, raws), strict=True)
    for name, (found, expected) in zip(hard_images, both, strict=True):
        apart = np.frombuffer(found, np.uint8).astype(int) - np.frombuffer(expected, np.uint8)
        # Decoders of JPEG and lossy WebP may round their transforms and their upsampled colours differently;
        # Chromium's and Pillow's, of the same libraries, agree today.
        lossy = name.startswith("JPEG") or name == "WebP"
        assert np.abs(apart).max() <= (4 if lossy else 0), name


def test_what_is_no_image_or_not_decoded_alike_is_refused_with_a_reason(page, hard_images):
    options = {"size": [8, 8], "channels": 3, "aspect": "crop"}
    colours = Image.new("RGB", (9, 9), "red")
    whole = hard_images["PNG 8 bits, kind 6, interlaced=False"]
    flipped = bytearray(whole)
    flipped[60] ^= 1
    raws = {
        "empty": b"",
        "not an image": b"hello",
        "it ends early": whole[: len(whole) // 2],
        "checksum": bytes(flipped),
        "a TIFF": written(colours, "TIFF"),
        "CMYK": written(colours.convert("CMYK"), "JPEG"),
        "20000 × 20000 pixels, expected at most 80,000,000": png(1, 1, 8, 2, False).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)),
        ),
        "cannot decode": written(colours, "JPEG")[:40],
    }
    for reason, found in zip(raws, encode(page, "image", options, [*raws.values()]), strict=True):
        assert reason in found


SENTENCES = [
    "Don't stop: it's the film’s ﬁnest, isn’t it? WOULDN'T you’d say we'll've",
    "Ünïcödé  ﬀ ① Ⅷ ½ x² ΑΣ ΟΔΟΣ. İstanbul ǅ ß ẞ",
    "日本語のテキスト、한국어 तकनीक ไทย עברית العربية",
    "e\u0301 cafe\u0301 \u212b \u00a0nbsp\u2003wide\u0085next\tline\nbreak\r\n",
    "emoji 👩‍👩‍👧 🇩🇪 ok_snake_case __init__ a.b,c;d 3.14 1,000 $5 50% a‿b",
    "[PAD] [UNK] [pad] ▁▁ a▁b  double  spaces ",
    "n't 'S 'RE n'tx 'sx don'tx 'm m ſ 'ſ K",
    "x" * 5000,
    "\ufeffbom inside \u200b zero \u200d joiner",
    ".",
]


@pytest.mark.parametrize(("tokenizer", "lowercase"), [("word", True), ("bpe", False)])
def test_sentences_are_encoded_as_in_python(root, page, tmp_path, tokenizer, lowercase):
    sentences = pd.read_parquet(root / "datasets/reviews/snippets.parquet")["text"].tolist()
    options = text.Options(tokenizer=tokenizer, vocabulary=4000, lowercase=lowercase)
    encoder = text.Encoder.learn(sentences[:1500] + SENTENCES, options)
    encoder.save(tmp_path)
    saved, files = (read_json(tmp_path / name) for name in ("encoder.json", "tokenizer.json"))
    raws = [*sentences, *SENTENCES, *(sentence.encode() for sentence in SENTENCES), "\ufefffirst".encode()]
    found = encode(page, "text", saved, raws, {"tokenizer.json": files})
    assert found == encode_in_python(encoder, raws)

    bad = ["", " \n\u3000\x1c", b"\xff\xfe", "a" * 1_000_001]
    reasons = ["empty", "blank", "UTF-8", "at most 1,000,000"]
    for reason, sentence in zip(
        reasons, encode(page, "text", saved, bad, {"tokenizer.json": files}), strict=True
    ):
        assert reason in sentence


def test_rows_are_encoded_as_in_python(page, tmp_path):
    names = ("size", "day", "at", "kind", "code", "on")
    table = [
        (1.5, "2024-02-29", "2024-02-29T13:45:10.25", "a", 7.0, True),
        ("?", "1969-12-31", "1950-01-01 00:00", "b", 0.5, False),
        (-3, None, "20240102T0304", " a ", 1e-05, True),
        ("2e3", "2020-W53-7", "2021-06-01T10:00:00+02:00", "", 1e22, None),
    ]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in table] * 3
    encoder = tabular.Encoder.learn(rows, tabular.Options(categorical=["code"], missing=["?", "NA", -999]))
    encoder.save(tmp_path)
    values: dict[str, list[Any]] = {
        "size": [
            -999,
            "-999",
            "na",
            " .5 ",
            "1e400",
            "inf",
            "nan",
            "1_0",
            "0x1",
            "",
            None,
            "٣ ",
            "+1.",
            1e300,
        ],
        "day": [
            "2024-2-1",
            "2023-02-29",
            "0001-01-01",
            "9999-12-31",
            "2021W01",
            "?",
            "yesterday",
            5,
            "20240101",
        ],
        "at": [
            "2024-01-01T24:00",
            "2024-01-01 23:59:59,999999",
            "2024-01-01T05Z",
            "2024-01-01",
            "2024-01-01T",
        ],
        "kind": ["A", "a", None, "other", 3, True],
        "code": ["7", "7.0", " 7 ", "0.50", "1e-5", "1e22", "10000000000000000000000", 7, 0.5, "seven", True],
        "on": ["true", "TRUE", "True", False, "0", 1, None],
    }
    raws = rows[:4] + [{**rows[0], name: value} for name, each in values.items() for value in each]
    raws += [dict.fromkeys(rows[0]), {"size": 1}]
    found = encode(page, "tabular", read_json(tmp_path / "encoder.json"), raws)
    expected = encode_in_python(encoder, raws)
    for raw, one, other in zip(raws, found, expected, strict=True):
        if raw.get("size") == "٣ ":  # digits beside ASCII's, which Python takes for a number
            assert one == 'column “size”: found "٣ ", expected a finite number'
        elif isinstance(other, str):
            assert isinstance(one, str), raw
        else:
            assert one == other, raw


def test_series_are_encoded_as_in_python(page, tmp_path):
    draw = np.random.default_rng(0)
    series = [draw.normal(size=(steps, 2)) for steps in (5, 9, 30, 1)]
    raws = [
        "\n".join(["time,a,b", *(f"{n},{x!r},{y:.4e}" for n, (x, y) in enumerate(each.tolist()))])
        for each in series
    ]
    raws += [
        "a,b\r\n1, 2 \r\n\r\n-3,4e-1\r\n",
        "\ufeff1,2\n3,4",
        "1;2\n3;4",
        "1,2\n3",
        "a,b\n",
        "1,2\n3,x",
        "1,2\n,4",
        "b,a\n1,2",
        "1\n2",
    ]
    packed = [raw.encode() for raw in raws]
    for cut in ("end", "start"):
        encoder = time_series.Encoder.learn(packed[:4], time_series.Options(length=9, cut=cut))
        encoder.save(tmp_path)
        found = encode(page, "time_series", read_json(tmp_path / "encoder.json"), packed)
        for raw, one, other in zip(raws, found, encode_in_python(encoder, packed), strict=True):
            assert isinstance(one, str) if isinstance(other, str) else one == other, raw
