"""Predicting without Keras: which inputs are found, what is written, and what is refused."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from src.errors import UserError
from src.predict import __main__ as command
from src.predict.inputs import Item
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.tasks import image, tabular, text

ROOT = Path(__file__).parents[2]
KINDS = ["flower", "portrait", "temple"]
SENTENCES = ["a film that sings", "a film that drags", "what a dull film", "what a bright film"]
ROWS = [{"age": age, "town": town} for age, town in ((20, "Bonn"), (30, "Köln"), (40, "Bonn"), (50, "Köln"))]


def write_onnx(path: Path, shape: tuple[int, ...], dtype: str, units: int, activation: str) -> None:
    """Writes a network of one dense layer with fixed weights."""
    scale = 0.3 / (255 if dtype == "uint8" else 1)
    weights = np.random.default_rng(0).normal(0, scale, (int(np.prod(shape)), units)).astype(np.float32)
    last = {"softmax": "Softmax", "sigmoid": "Sigmoid", "linear": "Identity"}[activation]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["dense"]),
            helper.make_node(last, ["dense"], ["output"]),
        ],
        "model",
        [helper.make_tensor_value_info("input", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", units])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def write_model(
    folder: Path, task: str, encoder: Any, classes: list[str] | None, activation: str = "softmax"
) -> Path:
    """Writes what prediction needs of src/models."""
    folder.mkdir()
    encoder.save(folder)
    units = len(classes or [0])
    write_onnx(folder / "model.onnx", encoder.shape, encoder.dtype, units, activation)
    content = {
        "format": 1,
        "task_type": task,
        "classes": classes,
        "architecture": {"name": "dense"},
        "parameters": 12,
        "input": {"shape": encoder.shape, "dtype": encoder.dtype},
        "output": {"units": units, "activation": activation},
        "encoder": json.loads((folder / "encoder.json").read_text()),
        "data": {"path": "datasets/x", "input": None, "examples": {"train": 1000}},
    }
    (folder / "encoder.json").unlink()
    (folder / "inference.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def images(workspace) -> Path:
    encoder = image.Encoder(image.Options(size=[8, 8], channels=1))
    return write_model(workspace / "model", "image", encoder, KINDS)


@pytest.fixture
def sentences(workspace) -> Path:
    encoder = text.Encoder.learn(SENTENCES, text.Options(least=1))
    return write_model(workspace / "model", "text", encoder, ["bad", "good"])


@pytest.fixture
def rows(workspace) -> Path:
    encoder = tabular.Encoder.learn(ROWS, tabular.Options())
    return write_model(workspace / "model", "tabular", encoder, None, "linear")


@pytest.fixture
def photos(workspace, photograph) -> Path:
    folder = workspace / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, kind in enumerate(KINDS):
        photograph(kind, number).save(folder / f"{kind}.png")
    photograph("temple", 7).save(folder / "deep/again.JPG")
    (folder / "notes.md").write_text("not an input")
    (folder / ".hidden.png").write_text("not an input either")
    return folder


@pytest.fixture
def predict(monkeypatch, capsys, fails) -> Callable[..., tuple[int, list[Any], str]]:
    """Runs the command on the model in ./model: its exit code, its JSON lines, and what it complains of."""

    def run(*arguments: str, stdin: bytes = b"", plain: bool = False) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["predict", "--model", "model", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        code, error = fails(command.main)
        written = capsys.readouterr()
        lines = written.out.splitlines()
        return code, lines if plain else [json.loads(line) for line in lines], written.err + error

    return run


# ── Which inputs are found ─────────────────────────────────────────────────────────────────────────────


def test_the_images_of_a_folder_are_predicted_in_order_whatever_else_lies_there(images, photos, predict):
    code, answers, error = predict("photos")
    assert (code, error) == (0, "")
    names = ["photos/flower.png", "photos/portrait.png", "photos/temple.png", "photos/deep/again.JPG"]
    assert [answer["input"] for answer in answers] == names
    for answer in answers:
        assert list(answer["probabilities"]) == sorted(KINDS, key=lambda kind: -answer["probabilities"][kind])
        assert answer["prediction"] == next(iter(answer["probabilities"]))
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_the_batch_size_changes_nothing(images, photos, predict):
    assert predict("photos", "--batch-size", "3", "--threads", "1") == predict("photos")


def test_what_a_predictor_gives_is_what_the_network_computes(images, photos):
    predictor = Predictor(Source(images))
    raws = [(photos / f"{kind}.png").read_bytes() for kind in KINDS]
    found = predictor.predict(raws)
    one_by_one = np.concatenate([predictor.predict([raw]) for raw in raws])
    assert found == pytest.approx(one_by_one, abs=1e-6)
    weights = numpy_helper.to_array(onnx.load(images / "model.onnx").graph.initializer[0])
    exponents = np.exp(np.stack([predictor.encode(raw) for raw in raws]).reshape(3, -1) @ weights)
    assert found == pytest.approx(exponents / exponents.sum(axis=1, keepdims=True), abs=1e-5)


def test_globs_tables_of_paths_and_standard_input_are_inputs_too(images, photos, predict):
    _, expected, _ = predict("photos/flower.png")
    code, found, _ = predict("photos/**/f*.png")
    assert (code, found) == (0, expected)
    (photos / "list.csv").write_text("file,kind\nflower.png,flower\ntemple.png,temple\n")
    code, found, _ = predict("photos/list.csv")
    assert (code, [answer["input"] for answer in found]) == (0, ["photos/list.csv:0", "photos/list.csv:1"])
    assert found[0]["probabilities"] == expected[0]["probabilities"]
    code, found, _ = predict("-", stdin=(photos / "flower.png").read_bytes())
    assert found[0]["probabilities"] == expected[0]["probabilities"]


def test_sentences_come_from_the_command_line_standard_input_files_and_tables(sentences, predict):
    _, expected, _ = predict("--text", SENTENCES[0], "--text", SENTENCES[1])
    wanted = [answer["probabilities"] for answer in expected]
    assert [answer["input"] for answer in expected] == SENTENCES[:2]
    lines = "\n".join(SENTENCES[:2])
    Path("film.txt").write_text(SENTENCES[0])
    Path("films.csv").write_text("id,review\n1," + lines.replace("\n", "\n2,") + "\n")
    Path("films.jsonl").write_text("\n".join(json.dumps({"review": line}) for line in SENTENCES[:2]))
    for arguments, stdin in (
        (["-"], lines.encode()),
        (["films.csv"], b""),
        (["films.jsonl"], b""),
        (["films.csv", "--column", "review"], b""),
    ):
        code, found, _ = predict(*arguments, stdin=stdin)
        assert (code, [answer["probabilities"] for answer in found]) == (0, wanted)
    assert predict("film.txt")[1][0]["probabilities"] == wanted[0]


def test_rows_come_from_csv_and_json_and_predict_the_same(rows, predict):
    Path("people.csv").write_text("town,age\nBonn,20\nKöln,\n")
    code, expected, _ = predict("people.csv")
    assert code == 0
    assert isinstance(expected[0]["prediction"], float)
    assert "probabilities" not in expected[0]
    lines = '{"age": 20, "town": "Bonn"}\n{"age": null, "town": "Köln"}\n'.encode()
    _, found, _ = predict("-", stdin=lines)
    assert [answer["prediction"] for answer in found] == [answer["prediction"] for answer in expected]
    _, found, _ = predict("-", stdin=Path("people.csv").read_bytes())
    assert [answer["prediction"] for answer in found] == [answer["prediction"] for answer in expected]


def test_a_code_or_a_truth_value_in_a_lone_row_is_the_category_that_it_was_in_training(workspace):
    raws = [{"code": code, "flag": code > 2.0} for code in (1.0, 2.0, 3.0, 4.0)]
    encoder = tabular.Encoder.learn(raws, tabular.Options(categorical=["code"]))
    for raw in raws:
        for written in ({"code": f"{raw['code']:.1f}"}, {"code": f"{raw['code']:.0f}"}):
            lone = {**written, "flag": str(raw["flag"]).upper()}
            assert encoder.encode(lone).tolist() == encoder.encode(raw).tolist()


def test_several_classes_above_one_half_are_all_predicted(workspace, photos, predict):
    encoder = image.Encoder(image.Options(size=[8, 8], channels=1))
    write_model(workspace / "model", "image", encoder, KINDS, "sigmoid")
    _, answers, _ = predict("photos")
    for answer in answers:
        above = [name for name in KINDS if answer["probabilities"][name] > 0.5]
        assert answer["prediction"] == above
    lines = predict("photos", "--csv", plain=True)[1]
    assert lines[1].split(",")[1] == "|".join(answers[0]["prediction"])


# ── What is written ────────────────────────────────────────────────────────────────────────────────────


def test_only_the_wanted_number_of_classes_is_named(images, photos, predict):
    _, answers, _ = predict("photos", "--top", "2")
    assert {len(answer["probabilities"]) for answer in answers} == {2}
    lines = predict("photos", "--top", "2", "--csv", plain=True)[1]
    assert lines[0] == "input,prediction,probability,class 1,probability 1,class 2,probability 2"
    assert lines[1].split(",")[3] == answers[0]["prediction"]


def test_csv_has_the_columns_of_predictions_parquet(images, photos, predict):
    _, lines, _ = predict("photos", "--csv", plain=True)
    assert lines[0] == "input,prediction,probability," + ",".join(f"probability of {name}" for name in KINDS)
    assert len(lines) == 5
    probabilities = [float(value) for value in lines[1].split(",")[3:]]
    assert float(lines[1].split(",")[2]) == max(probabilities)


def test_a_table_is_aligned(images, photos, predict):
    _, lines, _ = predict("photos", "--table", "--top", "2", plain=True)
    assert lines[0].split() == ["input", "prediction", "probability", "next"]
    column = lines[0].index("prediction")
    assert {line[column - 1] for line in lines} == {" "}
    assert all(line[column:].startswith(tuple(KINDS)) for line in lines[1:])


# ── What is refused ────────────────────────────────────────────────────────────────────────────────────


def test_bad_inputs_among_many_are_named_and_the_others_predicted(images, photos, predict):
    (photos / "empty.png").write_bytes(b"")
    (photos / "half.png").write_bytes((photos / "temple.png").read_bytes()[:200])
    (photos / "sound.png").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    code, answers, error = predict("photos", "gone.png", "photos/notes.md", "nothing*.png")
    assert code == 1
    assert len(answers) == 4
    said = dict(line.split(": ", 1) for line in error.splitlines())
    assert said["photos/empty.png"] == "empty"
    assert said["photos/half.png"].startswith("damaged image")
    assert said["photos/sound.png"] == said["photos/notes.md"] == "not an image in a known format"
    assert said["gone.png"] == "there is no such file"
    assert said["nothing*.png"].startswith("no input in it, expected files that end in .png, .jpg")
    assert len(said) == 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_an_image_of_another_channel_count_is_converted(images, workspace, predict, mode):
    Image.new("RGB", (9, 9), (10, 120, 40)).convert("L" if mode == "I;16" else mode).convert(mode).save(
        "a.tif"
    )
    code, answers, error = predict("a.tif")
    assert (code, len(answers), error) == (0, 1, "")


def test_a_folder_without_any_input_is_one_sentence(images, workspace, predict):
    (workspace / "bare").mkdir()
    code, answers, error = predict("bare")
    assert (code, answers) == (1, [])
    assert error.startswith("bare: no input in it, expected files that end in")
    assert error.count("\n") == 1


def test_text_that_is_too_long_empty_or_no_text_is_refused(sentences, predict):
    long = b"word " * 2_000_000
    Path("long.txt").write_bytes(long)
    Path("empty.txt").write_bytes(b"")
    Path("picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, _, error = predict("long.txt", "empty.txt", "picture.txt", "no file but a sentence")
    said = dict(line.split(": ", 1) for line in error.splitlines())
    assert code == 1
    assert said["long.txt"] == "10,000,000 bytes, expected at most 1,000,000 bytes"
    assert said["empty.txt"] == "empty"
    assert said["picture.txt"].startswith("expected text in UTF-8")
    assert said["no file but a sentence"] == "there is no such file; a sentence is given by --text"
    code, answers, error = predict("-", stdin=b"good film\n" + long + b"\nbad film")
    assert (code, len(answers)) == (1, 2)
    assert error == "-:1: a line of more than 1,000,000 bytes\n"


def test_whatever_reading_an_input_raises_is_its_reason(images):
    def read() -> bytes:
        raise OSError(5, "Input/output error")

    assert Predictor(Source(images)).attempt(Item("x", read)) == "damaged: [Errno 5] Input/output error"


def test_bad_rows_are_named_by_their_number(rows, predict):
    Path("people.csv").write_text("age,town\n20,Bonn\n20\nold,Bonn\n,\n30,Köln\n")
    code, answers, error = predict("people.csv")
    assert code == 1
    assert [answer["input"] for answer in answers] == ["people.csv:0", "people.csv:4"]
    assert "people.csv:1: 1 values, expected 2 as in the first line" in error
    assert "people.csv:2: column 'age': found 'old', expected a finite number" in error
    code, answers, error = predict("-", stdin=b'{"age": 3}\n{"age": \n[1]\n')
    assert (code, answers) == (1, [])
    assert "-:0: no column 'town', only age" in error
    assert "-:1: expected JSON, found '{\"age\": '" in error
    assert "-:2: expected a row" in error
    Path("shoe.png").write_bytes(b"\x89PNG")
    assert "shoe.png: expected a table that ends in .csv or .jsonl" in predict("shoe.png")[2]
    Path("none.csv").write_text("")
    assert "none.csv: no row in it" in predict("none.csv")[2]
    Path("latin.csv").write_bytes("age,town\n20,Köln\n".encode("latin-1"))
    assert "latin.csv:0: expected text in UTF-8" in predict("latin.csv")[2]


def test_an_output_that_is_no_finite_number_is_no_prediction(rows, predict):
    lines = b'{"age": 3e38, "town": "Bonn"}\n{"age": 3, "town": "Bonn"}\n'
    weights = onnx.load("model/model.onnx")
    (tensor,) = weights.graph.initializer
    large = numpy_helper.to_array(tensor) * np.float32(1000)
    tensor.CopyFrom(numpy_helper.from_array(large, "weights"))
    onnx.save(weights, "model/model.onnx")
    code, answers, error = predict("-", stdin=lines)
    assert (code, len(answers)) == (1, 1)
    assert error == "-:0: the model's output is not a finite number\n"


def test_a_file_whose_name_is_no_text_is_predicted_and_named(images, photos, predict):
    name = b"photos/\xff.png"
    with open(name, "wb") as file:
        file.write((photos / "temple.png").read_bytes())
    command = [sys.executable, "-m", "src.predict", "--model", "model", "photos"]
    result = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    names = [json.loads(line)["input"] for line in result.stdout.splitlines()]
    assert os.fsencode(names[-2]) == name


def test_a_table_without_the_input_s_column_says_which_there_are(sentences, predict):
    Path("films.csv").write_text("title_of_film,stars\nJaws,5\n")
    code, _, error = predict("films.csv")
    assert code == 1
    assert "films.csv:0: none of the columns text, sentence, review" in error
    assert "only title_of_film, stars; see --column" in error
    assert predict("films.csv", "--column", "title_of_film")[0] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "inference.json has format 2, newer than 1, the newest that this version reads"),
        ({"format": "one"}, "format: found 'one', expected a number"),
        ({"output": None}, "inference.json: output is missing"),
        ({"task_type": "smell"}, "there is no 'smell', expected one of audio, image"),
        ({"encoder": {"columns": 3}}, None),
    ],
)
def test_a_model_that_this_code_cannot_use_is_one_sentence(images, photos, predict, change, sentence):
    path = images / "inference.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    code, answers, error = predict("photos/temple.png")
    assert (code, answers) == (1, [])
    assert error.startswith("error: ")
    assert error.count("\n") == 0
    if sentence:
        assert sentence in error


def test_a_model_that_is_not_whole_is_one_sentence(images, photos, predict):
    (images / "model.onnx").write_bytes(b"no model")
    assert "model/model.onnx" in predict("photos/temple.png")[2].replace(": ", "/", 2).replace("error/", "")
    (images / "model.onnx").unlink()
    assert predict("photos/temple.png")[2].startswith("error: model: model.onnx is missing")
    with pytest.raises(UserError, match="gone: not found; expected a folder with a model"):
        Source(Path("gone"))
    Path("half.pyz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"half.pyz: expected a sluice.pyz, found no whole zip archive"):
        Source(Path("half.pyz"))


@pytest.mark.parametrize(
    "arguments", [[], ["--batch-size", "0", "a"], ["--threads", "-1", "a"], ["--top", "x", "a"]]
)
def test_wrong_usage_is_exit_code_2(images, predict, arguments):
    assert predict(*arguments)[0] == 2


def test_nothing_heavy_is_imported(images, photos, root):
    program = f"""
import sys
sys.path.insert(0, {str(root)!r})
sys.argv = ["predict", "--model", "model", "photos"]
from src import options
from src.predict.__main__ import main
options.trust()
main()
heavy = "tensorflow keras pandas pyarrow pydantic dvc scipy matplotlib sklearn onnx tqdm ruamel"
print("found", *(set(heavy.split()) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "found"
    assert len(result.stdout.splitlines()) == 5


@pytest.mark.slow
def test_memory_is_flat_for_a_folder_of_many_images(images, photograph, root):
    program = f"""
import resource, sys
sys.path.insert(0, {str(root)!r})
sys.argv = ["predict", "--model", "model", *sys.argv[1:]]
from src import options
from src.predict.__main__ import main
options.trust()
main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""
    peaks = []
    for count in (500, 20_000):
        folder = Path(str(count))
        folder.mkdir()
        photograph("temple", 1).save(folder / "000000.png")
        for number in range(1, count):
            os.link(folder / "000000.png", folder / f"{number:06}.png")
        result = subprocess.run(
            [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
        )
        assert len(result.stdout.splitlines()) == count
        peaks.append(int(result.stderr))
    assert peaks[1] - peaks[0] < 30, peaks
