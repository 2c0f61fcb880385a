"""The site in Chromium: arrays as Python's, the pipeline's predictions, no request to elsewhere."""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from ruamel.yaml import YAML

from src import golden, params
from src.dataset import content
from src.errors import BadExampleError
from src.evaluate import export, score
from src.files import read_json, write_json
from src.plugin import pick
from src.publish import site
from src.tasks import image, tabular, text, time_series
from src.train import fit, prepare

pytestmark = pytest.mark.slow

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
NOT_WELL = ("error", "warning")
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
PREDICT = """async (text) => {
  const {Model, describe} = await import(new URL("model.js", location.href));
  const model = await Model.load(await describe());
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const results = [];
  for (const raw of JSON.parse(text)) {
    const array = await model.encode(raw.base64 === undefined ? raw.text ?? raw.row : bytes(raw.base64));
    const output = await model.run(array);
    results.push({output: Array.from(output), classes: model.answer(output).classes});
  }
  return JSON.stringify(results);
}"""


# ── A browser, and what it sees ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Writes nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves a folder, as GitLab Pages does: with no header but the type."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@contextmanager
def visiting(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens sites; at the end, no request has left one and, unless it is broken, nothing has gone wrong."""
    visits: list[tuple[str, list[str], list[str]]] = []
    with ExitStack() as stack:

        def visit(folder: Path, broken: bool = False, **options: Any) -> Page:
            address = stack.enter_context(serving(folder))
            context = browser.new_context(**options)
            stack.callback(context.close)
            page = context.new_page()
            requests: list[str] = []
            errors: list[str] = []
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            if not broken:  # what is missing is an error in the console too
                page.on("console", lambda said: errors.append(said.text) if said.type in NOT_WELL else None)
            visits.append((address, requests, errors))
            page.goto(address)
            page.wait_for_selector("html[data-state=ready]")
            return page

        yield visit
    for address, requests, errors in visits:
        assert [url for url in requests if not url.startswith((address, "blob:", "data:"))] == []
        assert errors == []


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Page]]:
    with visiting(browser) as visit:
        yield visit


@pytest.fixture(scope="module")
def page(browser, fashion_model) -> Iterator[Page]:
    """A page for all tests that leave it as it is."""
    with visiting(browser) as visit:
        yield visit(fashion_model / "build/site")


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


# ── Models ─────────────────────────────────────────────────────────────────────────────────────────────


def train(root: Path, folder: Path, recipe: str, data: str, **changes: dict[str, Any]) -> Path:
    """Trains a small network for an epoch, and makes its site."""
    settings = YAML(typ="safe").load(root / f"recipes/{recipe}.yaml")
    changes = {"data": {"path": data}, "fit": {"epochs": 1}, **changes}
    for section, values in changes.items():
        settings[section] |= values
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["stage"])
        YAML(typ="safe").dump(settings, Path("params.yaml"))
        for stage in (prepare, fit, score, export):
            stage.main()
        Path("src/models/report").mkdir()
        Path("src/models/report/index.html").write_text("<title>Report</title>")
        site.main()
    return folder


@pytest.fixture(scope="module")
def fashion_model(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fashion")
    (folder / "few").mkdir()
    for split in ("train", "test"):
        table = pq.read_table(root / f"datasets/fashion/{split}.parquet").slice(0, 300)
        pq.write_table(table, folder / f"few/{split}.parquet")
    return train(root, folder, "fashion", "few", model={"filters": [8]})


@pytest.fixture(scope="module")
def reviews_model(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    table = pd.read_parquet(root / "datasets/reviews/snippets.parquet")
    table.iloc[::20].to_parquet(folder / "few.parquet")
    embedding = {"dimension": 8, "vectors": None, "trainable": True, "dropout": 0.0}
    model = {"units": 8, "bidirectional": False, "embedding": embedding}
    return train(root, folder, "reviews", "few.parquet", model=model, encode={"length": 24})


@pytest.fixture(scope="module")
def masses_model(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("masses")
    return train(root, folder, "breast-cancer", str(root / "datasets/breast-cancer"))


def predictions(folder: Path) -> tuple[pd.DataFrame, list[Any]]:
    """Returns predictions.parquet, and the raw inputs of its rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = params.load()
        Path("spool").mkdir(exist_ok=True)
        table = pick("tasks", settings.task).read(settings.data, Path("spool")).set_index("id")
        found = pd.read_parquet("src/models/predictions.parquet")
        return found, [content(table.loc[name, "input"]) for name in found["id"]]


@pytest.mark.parametrize("model", ["fashion_model", "reviews_model", "masses_model"])
def test_the_page_predicts_what_keras_predicted_in_the_pipeline(request, visit, model):
    folder = request.getfixturevalue(model)
    page = visit(folder / "build/site")
    expected, raws = predictions(folder)
    found = json.loads(page.evaluate(PREDICT, json.dumps([golden.pack(raw) for raw in raws])))
    names = read_json(folder / "src/models/inference.json")["classes"]
    columns = expected[[f"probability of {name}" for name in names]].to_numpy()
    assert len(found) >= 100
    assert np.abs(np.array([each["output"] for each in found]) - columns).max() < 1e-4
    assert [each["classes"] for each in found] == [[name] for name in expected["prediction"]]


# ── Encoders ───────────────────────────────────────────────────────────────────────────────────────────


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


# ── The page ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_is_chosen_and_its_probabilities_are_shown(visit, fashion_model, tmp_path):
    page = visit(fashion_model / "build/site")
    expected, raws = predictions(fashion_model)
    (tmp_path / "shoe.png").write_bytes(raws[0])
    page.set_input_files("input[type=file]", tmp_path / "shoe.png")
    page.wait_for_selector(".said")
    assert page.inner_text(".said") == expected["prediction"][0]
    bars = page.locator(".bars li").all_inner_texts()
    shown = {name: float(number.rstrip("%")) for name, number in (bar.split("\n") for bar in bars)}
    for name, percent in shown.items():
        assert percent == pytest.approx(100 * expected[f"probability of {name}"][0], abs=0.051)
    assert [*shown.values()] == sorted(shown.values(), reverse=True)

    (tmp_path / "bad.png").write_bytes(b"no image")
    page.set_input_files("input[type=file]", tmp_path / "bad.png")
    expect(page.get_by_role("alert")).to_contain_text("not an image in a known format")
    page.click(".examples button")
    page.wait_for_selector(".said")
    expect(page.locator("#problem")).to_be_empty()


def test_a_sentence_is_typed_and_sent_by_keyboard(visit, reviews_model):
    page = visit(reviews_model / "build/site")
    expected, raws = predictions(reviews_model)
    page.get_by_label("A sentence").focus()
    page.keyboard.insert_text(raws[0])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".said")
    assert page.inner_text(".said") == expected["prediction"][0]
    page.get_by_label("A sentence").fill("  ")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text("blank: nothing but white space")


def test_a_form_is_filled_in_and_gaps_are_allowed(visit, masses_model):
    page = visit(masses_model / "build/site")
    expected, raws = predictions(masses_model)
    for name, value in raws[0].items():
        if page.get_by_label(name, exact=True).count():
            page.get_by_label(name, exact=True).fill(str(value))
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".said")
    assert page.inner_text(".said") == expected["prediction"][0]
    page.get_by_label("mean radius").fill("large")
    page.get_by_role("button", name="Predict").click()
    problem = 'column “mean radius”: found "large", expected a finite number'
    expect(page.get_by_role("alert")).to_have_text(problem)


@pytest.mark.parametrize(
    ("model", "scheme"), [("fashion_model", "light"), ("reviews_model", "dark"), ("masses_model", "dark")]
)
def test_it_fits_a_phone_and_says_what_the_model_is(request, visit, model, scheme):
    folder = request.getfixturevalue(model)
    phone = {"width": 390, "height": 844}
    page = visit(folder / "build/site", viewport=phone, color_scheme=scheme, has_touch=True)
    if page.locator(".examples button").count():
        page.locator(".examples button").first.tap()
        page.wait_for_selector(".said")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for control in page.locator("button, input, textarea, select").all():
        assert control.bounding_box()["height"] >= 24  # WCAG 2.2, 2.5.8
        assert control.evaluate("node => Boolean(node.labels?.length || node.innerText || node.ariaLabel || "
                                "node.querySelector('img')?.alt)")  # fmt: skip
    metrics = read_json(folder / "src/models/metrics.json")
    assert f"{metrics['accuracy']:.4g}" in page.inner_text("#metrics")
    assert "the gate has not judged this model" in page.inner_text("#about")
    link = page.get_by_role("link", name="Report")
    assert (folder / "build/site" / link.get_attribute("href")).is_file()


@pytest.fixture
def copied(fashion_model, tmp_path) -> Path:
    return Path(shutil.copytree(fashion_model / "build/site", tmp_path / "site"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 99}, "inference.json has format 99, newer than 1, the newest that this page reads"),
        ({"format": None}, "inference.json: format: found null, expected a number"),
        ({"task_type": "audio"}, "A model of this kind (audio) is tried with `python sluice.pyz serve`"),
        (
            {"encoder": {}},
            "inference.json: encoder: expected one of the task image for inputs of 28 × 28 × 1",
        ),
    ],
)
def test_a_bundle_that_the_page_cannot_use_gives_a_sentence(visit, copied, changes, sentence):
    inference = read_json(copied / "inference.json")
    write_json(copied / "inference.json", inference | changes)
    page = visit(copied)
    assert page.inner_text("#problem").startswith(sentence)
    assert page.get_by_role("link", name="Report").is_visible()


@pytest.mark.parametrize("name", ["inference.json", "model.onnx", "site.json"])
def test_a_missing_file_gives_a_sentence(visit, copied, name):
    (copied / name).unlink()
    page = visit(copied, broken=True)
    expect(page.get_by_role("alert")).to_have_text(f"{name} is missing; expected a whole model")


def test_a_network_cut_short_gives_a_sentence(visit, copied):
    path = copied / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    page = visit(copied, broken=True)
    sentence = "model.onnx: expected what ONNX Runtime loads, found: "
    expect(page.get_by_role("alert")).to_contain_text(sentence)


def test_answers_mean_what_they_mean_in_python(page):
    answer = """async ([inference, output]) => {
      const {Model} = await import(new URL("model.js", location.href));
      return new Model(inference, null, null).answer(Float32Array.from(output));
    }"""
    several = {"classes": ["a", "b", "c"], "output": {"activation": "sigmoid"}}
    assert page.evaluate(answer, [several, [0.75, 0.5, 0.875]])["classes"] == ["a", "c"]
    assert page.evaluate(answer, [several, [0.25, 0.5, 0.125]])["classes"] == []
    single = {"classes": ["a", "b", "c"], "output": {"activation": "softmax"}}
    found = page.evaluate(answer, [single, [0.25, 0.375, 0.375]])
    assert found["classes"] == ["b"]
    assert found["ranked"] == [["b", 0.375], ["c", 0.375], ["a", 0.25]]
    numbers = {"classes": None, "output": {"activation": "linear"}}
    assert page.evaluate(answer, [numbers, [1.5]]) == {"classes": None, "numbers": [1.5], "ranked": []}


# ── The files ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_site_holds_no_address_of_another_host(fashion_model):
    own = [path for path in Path(site.SOURCES).rglob("*") if path.suffix in site.PAGE]
    assert own
    for path in own:
        assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text()) == []
        assert (
            fashion_model / "build/site" / path.relative_to(site.SOURCES)
        ).read_bytes() == path.read_bytes()


def test_a_site_of_the_same_model_has_the_same_bytes(fashion_model, monkeypatch):
    monkeypatch.chdir(fashion_model)
    monkeypatch.setattr("sys.argv", ["site"])
    before = {path: path.read_bytes() for path in site.SITE.rglob("*") if path.is_file()}
    site.main()
    assert {path: path.read_bytes() for path in site.SITE.rglob("*") if path.is_file()} == before


def test_what_is_missing_is_named_and_no_half_a_site_is_left(workspace, fashion_model, run_command):
    shutil.copytree(fashion_model / "src/models", "model")
    code, said = run_command(site.main, "model", "--packages", "nowhere")
    assert (code, said.split(":")[1].strip()) == (1, "nowhere/onnxruntime-web/dist/ort.wasm.min.mjs")
    assert "`make site` brings it" in said
    Path("model/model.onnx").unlink()
    assert run_command(site.main, "model") == (
        1,
        "error: model/model.onnx: not found; expected a whole model",
    )
    assert not Path("build").exists() or not any(Path("build").iterdir())


def test_a_bundle_that_was_changed_is_refused_and_a_verdict_is_shown(
    visit, bundled, fashion_model, run_command
):
    for name in ("model.onnx", "inference.json", "metrics.json", "golden.json"):
        shutil.copyfile(fashion_model / "src/models" / name, bundled / name)
    code, said = run_command(site.main)
    assert code == 1
    assert "was changed since it was bundled" in said or "is not listed" in said
    (bundled / "SHA256SUMS").unlink()
    assert run_command(site.main) == (0, "")
    page = visit(Path("build/site"))
    assert page.inner_text("#about") == "The gate’s verdict: pass"
    assert (Path("build/site/card.txt")).read_bytes() == (bundled / "README.md").read_bytes()
