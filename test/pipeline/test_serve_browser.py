"""The page of the server in Chromium, as people use it: by mouse, keyboard, microphone, and on a phone."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser_bench import chromium  # type: ignore[import-not-found]
from playwright.sync_api import Browser, Page, expect
from test_serve_process import serving  # type: ignore[import-not-found]

from src.predict.predictor import Predictor
from src.predict.source import Source
from src.tasks import audio, image, tabular, text

pytestmark = pytest.mark.slow
expect.set_options(timeout=30_000)

KINDS = ["flower", "portrait", "<b>temple</b>", "d", "e", "f", "g"]
SENTENCES = ["a film that sings", "a film that drags", "what a dull film", "what a bright film"]
ROWS = [{"age": age, "town": town} for age, town in ((20, "Bonn"), (30, "Köln"), (40, "Bonn"), (50, "Köln"))]
MICROPHONE = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)  # a tone, unasked


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(*MICROPHONE) as browser:
        yield browser


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    from test_predict import write_model  # type: ignore[import-not-found]

    folder = tmp_path_factory.mktemp("models")
    pixels = image.Encoder(image.Options(size=[8, 8], channels=1))
    images = write_model(folder / "image", "image", pixels, KINDS)
    card = "# The card\n\n| a | b |\n|---|---|\n| `x` | **y** |\n\n<script>document.title = 'run'</script>\n"
    (images / "README.md").write_text(card)
    gates = [{"gate": "minimum", "verdict": "pass", "reason": "<i>enough</i>"}]
    (images / "gate.json").write_text(json.dumps({"verdict": "pass", "gates": gates}))
    metrics = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0, "classes": {"flower": {"f1": 0.5}}}
    (images / "metrics.json").write_text(json.dumps(metrics))
    words = text.Encoder.learn(SENTENCES, text.Options(least=1))
    columns = tabular.Encoder.learn(ROWS, tabular.Options())
    rows = write_model(folder / "row", "tabular", columns, None, "linear")
    example = {"id": "first", "input": {"row": ROWS[1]}, "output": [1.0]}
    (rows / "golden.json").write_text(json.dumps({"unit": 1.0, "examples": [example]}))
    sounds = audio.Encoder(audio.Options(rate=8000, seconds=0.5))
    return {
        "image": images,
        "text": write_model(folder / "text", "text", words, ["bad", "good"]),
        "row": rows,
        "audio": write_model(folder / "audio", "audio", sounds, ["no", "yes"]),
    }


@pytest.fixture(scope="module")
def servers(models) -> Iterator[Callable[[str], str]]:
    """Where a model is served, from its first use on."""
    with ExitStack() as stack:
        urls: dict[str, str] = {}

        def start(kind: str) -> str:
            if kind not in urls:
                urls[kind] = stack.enter_context(serving(models[kind]))[0]
            return urls[kind]

        yield start


@pytest.fixture
def visit(browser, servers) -> Iterator[Callable[..., Page]]:
    """Opens the page of a model; at the end, nothing went wrong in it, and nothing was asked of others."""
    complaints: list[str] = []
    asked: set[str] = set()
    with ExitStack() as stack:

        def open_page(kind: str, width: int = 1280, **options) -> Page:
            size = {"width": width, "height": 844}
            context = browser.new_context(viewport=size, permissions=["microphone"], **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: asked.add(request.url.split("/")[2]))
            page.goto(servers(kind))
            page.wait_for_selector("body[data-ready]")
            return page

        yield open_page
    refused = "status of 422"  # a bad input, of which the console tells too
    assert [each for each in complaints if refused not in each] == []  # of the security policy, too
    assert {host for host in asked if host and not host.startswith("127.0.0.1:")} == set()


def test_an_image_is_predicted_and_nothing_in_names_or_cards_is_run(visit, models, photograph, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    photograph("flower", 0).save(path)
    predictor = Predictor(Source(models["image"]))
    expected = predictor.answer(predictor.predict([path.read_bytes()])[0])
    page = visit("image")
    page.get_by_label("Choose images").set_input_files([path])
    answer = page.locator(".answer")
    expect(answer.locator(".best")).to_have_text(expected["prediction"])
    bars = answer.locator(".bars li:visible")
    expect(bars).to_have_count(5)
    expect(bars.first.locator(".value")).to_have_text(f"{expected['probability'] * 100:.1f} %")
    answer.get_by_role("button", name="2 more").click()
    expect(bars).to_have_count(7)
    expect(answer.locator("h3")).to_contain_text("<img src=x onerror")
    expect(page.get_by_role("status")).to_contain_text(expected["prediction"])

    expect(page.locator("#verdict")).to_have_text("✓ Gate: pass")
    expect(page.locator("#gates td").last).to_have_text("<i>enough</i>")
    expect(page.locator("#metrics")).to_contain_text("95 %: 0.8 to 1")
    page.get_by_text("Model card").click()
    expect(page.locator(".card td code")).to_have_text("x")
    expect(page.locator(".card")).to_contain_text("<script>")
    assert page.title() == "x-dense: try the model"


def test_files_can_be_dropped_and_a_bad_one_is_named_among_them(visit, photograph, tmp_path):
    photograph("temple", 1).save(tmp_path / "good.png")
    page = visit("image")
    content = list((tmp_path / "good.png").read_bytes())
    page.evaluate(
        """(content) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "good.png"));
            data.items.add(new File(["text"], "bad.png"));
            document.querySelector(".drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        content,
    )
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator(".answer").nth(1)).to_contain_text("not an image in a known format")


def test_a_sentence_needs_the_keyboard_alone(visit, models):
    predictor = Predictor(Source(models["text"]))
    expected = predictor.answer(predictor.predict(["what a bright film"])[0])
    page = visit("text")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("what a bright film")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Predict"
    page.keyboard.press("Enter")
    expect(page.locator(".best")).to_have_text(expected["prediction"])
    expect(page.get_by_role("status")).to_contain_text(expected["prediction"])


def test_a_row_is_filled_in_with_names_from_the_encoder(visit, models):
    predictor = Predictor(Source(models["row"]))
    page = visit("row")
    assert page.get_by_label("age").input_value() == "30"  # of the first test example
    page.get_by_label("age").fill("41.5")
    page.get_by_label("town").select_option("Bonn")
    page.get_by_role("button", name="Predict").click()
    expected = float(predictor.predict([{"age": 41.5, "town": "Bonn"}])[0, 0])
    expect(page.locator(".best")).to_have_text(str(float(f"{expected:.4g}")))
    page.get_by_label("age").fill("")
    page.get_by_label("town").select_option("")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer .bad")).to_have_text("no value in any column that is used")


def test_a_sound_is_recorded_and_predicted(visit):
    page = visit("audio")
    record = page.get_by_role("button", name="Record")
    record.click()
    expect(page.get_by_role("timer")).to_contain_text(re.compile(r"0\.[5-9]|[1-9]\."))
    page.get_by_role("button", name="Stop and predict").click()
    expect(page.locator(".best")).to_have_text(re.compile("^(no|yes)$"))
    expect(page.locator(".answer audio")).to_be_visible()
    expect(record).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("kind", ["image", "text", "row", "audio"])
def test_it_fits_a_phone_and_all_that_is_asked_has_a_name(visit, kind):
    page = visit(kind, width=390, has_touch=True, is_mobile=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    named = "[...document.querySelectorAll('input, textarea, select')].every((e) => e.labels.length === 1)"
    assert page.evaluate(named)
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
    if kind == "image":
        expect(page.get_by_text("Take a photo")).to_be_visible()
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert sum(map(int, ink[4:-1].split(","))) > 600 > 200 > sum(map(int, paper[4:-1].split(",")))


def test_a_server_that_has_ended_is_told(browser, models):
    with serving(models["text"]) as (url, process):
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        process.terminate()
        process.wait(10)
        page.get_by_label("Text").fill("anyone there?")
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        page.close()
