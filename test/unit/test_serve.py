"""The server, in this process: what it answers, to what it says no, and what it says of itself."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient
from test_predict import KINDS, ROWS, SENTENCES, write_model  # type: ignore[import-not-found]

from src.predict.inputs import Item
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.predict.web import about
from src.predict.web.app import App
from src.predict.web.batches import Batches
from src.predict.web.reading import Limits, Room
from src.tasks import audio, image, tabular, text

SMALL = Limits(size=200_000, seconds=60.0, inputs=20)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A model of each kind of input."""
    folder = tmp_path_factory.mktemp("models")
    encoder = image.Encoder(image.Options(size=[8, 8], channels=1))
    images = write_model(folder / "image", "image", encoder, KINDS)
    (images / "README.md").write_text("# A card\n\n<script>alert(1)</script>\n")
    (images / "gate.json").write_text(json.dumps({"verdict": "pass", "gates": []}))
    (images / "metrics.json").write_text(json.dumps({"accuracy": 0.9}))
    (images / "report").mkdir()
    (images / "report/index.html").write_text("<title>Report</title>")
    example = {"id": "first", "input": {"text": "x"}, "output": [1.0]}
    (images / "golden.json").write_text(json.dumps({"unit": 1.0, "examples": [example]}))
    several = write_model(folder / "several", "image", encoder, KINDS, "sigmoid")
    sentences = text.Encoder.learn(SENTENCES, text.Options(least=1))
    rows = tabular.Encoder.learn(ROWS, tabular.Options())
    sounds = audio.Encoder(audio.Options(rate=8000, seconds=0.5))
    return {
        "image": images,
        "several": several,
        "text": write_model(folder / "text", "text", sentences, ["bad", "good"]),
        "row": write_model(folder / "row", "tabular", rows, None, "linear"),
        "audio": write_model(folder / "audio", "audio", sounds, ["no", "yes"]),
    }


@pytest.fixture(scope="module")
def app(models) -> Callable[..., App]:
    """The application of a model."""

    def make(kind: str, limits: Limits = SMALL) -> App:
        return App(Predictor(Source(models[kind]), threads=1), limits, 2)

    return make


@pytest.fixture(scope="module")
def client(app) -> Callable[..., TestClient]:
    """A client of such an application."""
    return lambda kind, limits=SMALL: TestClient(
        app(kind, limits).build(), base_url="http://127.0.0.1", raise_server_exceptions=False
    )


@pytest.fixture(scope="module")
def photos(photograph) -> list[bytes]:
    """PNG files, one of each kind."""
    found = []
    for number, kind in enumerate(KINDS):
        file = io.BytesIO()
        photograph(kind, number).save(file, "PNG")
        found.append(file.getvalue())
    return found


def form(photos: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{number}.png", photo)) for number, photo in enumerate(photos)]


def as_json(raws: list[Any]) -> dict[str, Any]:
    return {"inputs": [base64.b64encode(raw).decode() if isinstance(raw, bytes) else raw for raw in raws]}


def conforms(client: TestClient, answer: Any, status: int) -> None:
    """An answer is as the server's own description says."""
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/predict"]["post"]["responses"]
    schema = responses[str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})


# ── What it answers ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["image", "several"])
def test_files_are_answered_as_the_predictor_does_however_they_are_sent(kind, client, models, photos):
    predictor = Predictor(Source(models[kind]))
    expected = [predictor.answer(output) for output in predictor.predict(photos)]
    with client(kind) as server:
        posted = server.post("/predict", files=form(photos)).json()
        encoded = server.post("/predict", json=as_json(photos)).json()
        single = server.post("/predict", content=photos[0], headers={"Content-Type": "image/png"}).json()
        conforms(server, posted, 200)
    for answer, name in ((posted, "1.png"), (encoded, "inputs[1]")):
        assert answer["predictions"][1]["input"] == name
        found = [{key: row[key] for key in row if key != "input"} for row in answer["predictions"]]
        assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
    assert single["predictions"][0]["prediction"] == expected[0]["prediction"]


def test_texts_are_answered_from_json_plain_text_forms_and_tables(client):
    table = ("table", ("films.csv", b"text\na film that sings\nwhat a dull film\n"))
    with client("text") as server:
        many = server.post("/predict", json={"inputs": SENTENCES}).json()["predictions"]
        plain = server.post("/predict", content=SENTENCES[0], headers={"Content-Type": "text/plain"}).json()
        field = server.post("/predict", data={"text": SENTENCES[0]}, files={"x": ("a.txt", b"dull")}).json()
        rows = server.post("/predict", files=[table]).json()["predictions"]
    assert len(many) == 4
    assert plain["predictions"][0]["probabilities"] == many[0]["probabilities"]
    assert [row["input"] for row in field["predictions"]] == ["text", "a.txt"]
    assert [row["input"] for row in rows] == ["films.csv:0", "films.csv:1"]
    assert rows[1]["prediction"] == many[2]["prediction"]


def test_rows_are_answered_from_json_csv_and_lines_of_json(client):
    header, *lines = ["age,town", "20,Bonn", "30,Köln"]
    with client("row") as server:
        many = server.post("/predict", json={"inputs": ROWS}).json()["predictions"]
        table = server.post(
            "/predict", content="\n".join([header, *lines]).encode(), headers={"Content-Type": "text/csv"}
        ).json()["predictions"]
        objects = "\n".join(json.dumps(row) for row in ROWS[:2])
        jsonl = server.post(
            "/predict", content=objects, headers={"Content-Type": "application/x-ndjson"}
        ).json()["predictions"]
        conforms(server, server.post("/predict", json={"inputs": ROWS}).json(), 200)
    numbers = [row["prediction"] for row in many]
    assert len(set(numbers)) == 4
    assert [row["prediction"] for row in table] == [row["prediction"] for row in jsonl] == numbers[:2]


def test_the_most_probable_classes_alone_can_be_asked_for(client, photos):
    with client("image") as server:
        answer = server.post("/predict?top=1", files=form(photos)).json()["predictions"]
        bad = server.post("/predict?top=0", files=form(photos))
    assert [list(row["probabilities"]) for row in answer] == [[row["prediction"]] for row in answer]
    assert (bad.status_code, bad.json()["error"]) == (
        400,
        "top: found '0', expected a whole number from 1 up",
    )


# ── What it refuses ────────────────────────────────────────────────────────────────────────────────────


def test_one_bad_input_among_many_is_reported_and_the_others_are_predicted(client, photos):
    with client("image") as server:
        response = server.post("/predict", files=form([photos[0], b"", photos[1], b"no image"]))
        answers = response.json()["predictions"]
        conforms(server, response.json(), 200)
    assert response.status_code == 200
    assert [row.get("error") for row in answers] == [None, "empty", None, "not an image in a known format"]
    assert answers[2]["prediction"] in KINDS


def test_a_bad_input_alone_is_422_with_the_reason(client, photos):
    with client("image") as server:
        alone = server.post("/predict", files=form([photos[0][:200]]))
        both = server.post("/predict", json={"inputs": ["!", 3]})
        for response in (alone, both):
            assert response.status_code == 422
            conforms(server, response.json(), 422)
    assert alone.json()["error"].startswith("0.png: damaged image")
    assert both.json()["error"] == (
        "none of 2 inputs, the first inputs[0]: expected a file in base64, found '!'"
    )


@pytest.mark.parametrize(
    ("kind", "media", "content", "status", "sentence"),
    [
        ("image", "application/pdf", b"%PDF", 415, "Content-Type: found application/pdf, expected one of"),
        ("image", "text/csv", b"a,b\n1,2\n", 415, "found text/csv"),
        ("text", "image/png", b"\x89PNG", 415, "found image/png"),
        ("image", "", b"x", 415, "found none"),
        ("image", "application/json", b"{", 400, "expected JSON, found something else"),
        ("image", "application/json", b"[" * 100_000, 400, "expected JSON, found something else"),
        ("image", "application/json", b'{"input": "x"}', 400, 'expected {"inputs": [...]}'),
        ("image", "application/json", b'{"inputs": []}', 400, "no input in it"),
        ("image", "multipart/form-data", b"x", 400, "Missing boundary"),
        ("image", "multipart/form-data; boundary=x", b"nothing", 400, "multipart"),
        ("text", "application/json", b'{"inputs": ["\\ud800"]}', 422, "expected text in UTF-8"),
        ("text", "application/json", b'{"inputs": [" "]}', 422, "blank"),
        ("row", "application/json", b'{"inputs": [[1, 2]]}', 422, "expected a row, {column: value}, found"),
        ("row", "application/json", b'{"inputs": [{"age": 3}]}', 422, "no column 'town'"),
        ("row", "text/csv", b"", 422, "no row in it"),
    ],
)
def test_what_is_no_input_is_refused_with_a_status_and_a_reason(
    client, kind, media, content, status, sentence
):
    with client(kind) as server:
        response = server.post("/predict", content=content, headers={"Content-Type": media})
        conforms(server, response.json(), status)
    assert response.status_code == status
    assert sentence in response.json()["error"]


def test_a_compressed_body_is_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with client("text") as server:
        response = server.post("/predict", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 415
    assert "found gzip" in response.json()["error"]


@pytest.mark.parametrize("media", ["image/png", "application/json"])
def test_a_body_that_is_too_large_is_413_whatever_length_it_declares(client, media):
    def pieces() -> Any:  # sent in chunks, so that no length is declared
        for _ in range(30):
            yield b"x" * 10_000

    with client("image") as server:
        response = server.post("/predict", content=pieces(), headers={"Content-Type": media})
    assert "content-length" not in response.request.headers
    assert response.status_code == 413
    assert response.json()["error"] == "300,000 bytes, expected at most 200,000; see --limit"


def test_a_file_in_a_form_that_is_too_large_is_413(client):
    with client("image") as server:
        response = server.post("/predict", files={"file": ("large.png", b"x" * 300_000)})
    assert response.status_code == 413


def test_too_many_inputs_and_too_long_a_text_are_refused(client):
    with client("text", Limits(inputs=20)) as server:
        many = server.post("/predict", json={"inputs": ["x"] * 21})
        files = server.post("/predict", files=[("f", (f"{number}.txt", b"x")) for number in range(21)])
        long = server.post("/predict", json={"inputs": ["x" * 10_000_000, SENTENCES[0]]})
    assert (many.status_code, files.status_code) == (413, 413)
    assert many.json()["error"] == "more than 20 inputs, expected at most so many at once"
    assert long.status_code == 200
    assert long.json()["predictions"][0]["error"] == "10,000,000 bytes, expected at most 1,000,000"


def test_paths_that_are_not_there_and_other_methods_are_json_too(client):
    with client("image") as server:
        lost = server.get("/page/../../app.py")
        wrong = server.get("/predict")
    assert (lost.status_code, wrong.status_code) == (404, 405)
    assert lost.json()["error"].startswith("there is no /")
    assert wrong.json()["error"] == "GET is no way to ask /predict"


def test_a_prediction_that_takes_too_long_is_504(app, photos):
    slow = app("image", Limits(seconds=1.0))
    run, ended = slow.predictor.run, threading.Event()

    def wait(batch: np.ndarray) -> np.ndarray:
        ended.wait(60)
        return run(batch)

    slow.predictor.run = wait
    with TestClient(slow.build()) as server:
        response = server.post("/predict", files=form(photos[:1]))
        ended.set()
        assert response.status_code == 504
        assert response.json()["error"] == "predicting took more than 1 s"
        assert server.post("/predict", files=form(photos[:1])).status_code == 200
    assert slow.room.requests == slow.room.bytes == 0


def test_a_failure_inside_is_500_and_the_next_request_is_answered(app, photos):
    broken = app("image")
    run = broken.predictor.run

    def fail(batch: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory at 0x7f")

    broken.predictor.run = fail
    with TestClient(broken.build(), raise_server_exceptions=False) as server:
        response = server.post("/predict", files=form(photos[:1]))
        assert (response.status_code, response.json()["error"]) == (
            500,
            "the server failed; its log says why",
        )
        broken.predictor.run = run
        assert server.post("/predict", files=form(photos[:1])).status_code == 200


def test_when_there_is_no_room_a_request_is_told_to_come_again(client, photos):
    with client("image", Limits(requests=0)) as server:
        response = server.post("/predict", files=form(photos[:1]))
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    room = Room(Limits(held=100))
    with room.guest() as first, room.guest() as second:
        first._hold(150)  # one that is alone may be larger than all together
        with pytest.raises(Exception, match="150 bytes of other requests are held"):
            second._hold(1)
    assert room.bytes == room.requests == 0


# ── How it computes ────────────────────────────────────────────────────────────────────────────────────


def test_what_arrives_while_a_batch_is_computed_is_the_next_batch(models, photos):
    predictor = Predictor(Source(models["image"]), threads=1)
    run, sizes = predictor.run, []

    def count(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        time.sleep(0.1)
        return run(batch)

    predictor.run = count
    batches = Batches(predictor, 2)

    async def ask(number: int) -> Any:
        photo = photos[number % 3] if number != 5 else b"no image"
        (output,) = await batches.predict([Item(str(number), lambda: photo)])
        return output

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(number) for number in range(40)))

    outputs = asyncio.run(ask_all())
    expected = predictor.predict(photos)
    assert outputs[5] == "not an image in a known format"
    for number in (0, 1, 2, 20, 39):
        assert outputs[number] == pytest.approx(expected[number % 3], abs=1e-6)
    assert sum(sizes[:-1]) == 39  # the last is the expected ones
    assert len(sizes) < 20


# ── What it says of itself ─────────────────────────────────────────────────────────────────────────────


def test_it_says_that_it_is_ready_and_what_the_model_is(client):
    with client("image") as server:
        health, info = server.get("/health").json(), server.get("/info").json()
        assert server.get("/examples").json() == [{"id": "first", "text": "x"}]
    assert health == {"status": "ready", "sha256": info["sha256"]}
    assert (info["name"], info["verdict"], info["metrics"]) == ("x-dense", "pass", {"accuracy": 0.9})
    assert info["classes"] == KINDS
    assert info["predicts"] == "class"
    assert info["input"]["media_types"] == ["image/*"]
    assert info["card"].startswith("# A card")


def test_a_model_without_card_verdict_metrics_and_report_is_served_too(client):
    with client("several") as server:
        info = server.get("/info").json()
        assert [info[key] for key in ("card", "verdict", "metrics", "report")] == [None, None, {}, False]
        assert info["predicts"] == "classes"
        for path in ("/report", "/examples"):
            assert server.get(path).status_code == 404


def test_columns_are_those_of_the_encoder(client):
    with client("row") as server:
        columns = server.get("/info").json()["input"]["columns"]
    assert [(column["name"], column["kind"]) for column in columns] == [("age", "numbers"), ("town", "names")]
    assert columns[1]["categories"] == ["Bonn", "Köln"]


@pytest.mark.parametrize("kind", ["image", "several", "text", "row", "audio"])
def test_its_description_is_openapi_and_names_what_it_takes(client, kind):
    with client(kind) as server:
        document = server.get("/openapi.json").json()
        taken = document["paths"]["/predict"]["post"]["requestBody"]["content"]
        for media in taken:  # each is taken, whatever is then found in it
            kind_of = media.replace("*", "x")
            response = server.post("/predict", content=b"\xff", headers={"Content-Type": kind_of})
            assert response.status_code in (400, 422), (media, response.text)
    validate(document)


def test_every_answer_tells_browsers_to_run_nothing_else(client, photos):
    with client("image") as server:
        answers = [server.get(path) for path in ("/", "/page/page.js", "/info", "/report", "/nowhere")]
        answers.append(server.post("/predict", files=form(photos)))
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy or "script-src 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert answers[1].headers["Content-Type"].startswith("text/javascript")


def test_the_page_names_no_other_host():
    for name, content in about.page().items():
        urls = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in urls, name
        assert "https://" not in urls, name
