"""The site in Chromium: the pipeline's predictions, a page for people, no request to elsewhere."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from browser_bench import chromium, serving  # type: ignore[import-not-found]
from playwright.sync_api import Browser, Page, expect
from ruamel.yaml import YAML

from src import golden, params
from src.dataset import content
from src.evaluate import export, score
from src.files import read_json, write_json
from src.plugin import pick
from src.publish import site
from src.train import fit, prepare

pytestmark = pytest.mark.slow
expect.set_options(timeout=30_000)

NOT_WELL = ("error", "warning")
# JSON goes in and out: Playwright takes long over many small values.
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


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


def test_answers_mean_what_they_mean_in_python(visit, fashion_model):
    page = visit(fashion_model / "build/site")
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
