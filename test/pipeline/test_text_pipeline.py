"""The recipe for reviews on some of its sentences, table to report; and sentences that are bad."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from ruamel.yaml import YAML
from tokenizers import Tokenizer

from src import engine
from src.evaluate import export, report, score
from src.files import sha256
from src.train import fit, prepare

MODELS = Path("src/models")


def use(root: Path, path: str, **changes: dict[str, Any]) -> None:
    """Writes params.yaml here: the recipe, for other data and a smaller network, with changes by section."""
    recipe = YAML(typ="safe").load(root / "recipes/reviews.yaml")
    recipe["data"]["path"] = path
    recipe["model"] |= {"units": 8, "dropout": 0.0}
    recipe["model"]["embedding"]["vectors"] = str(root / "datasets/reviews/vectors.npy")
    recipe["fit"] |= {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01}}
    for section, values in changes.items():
        recipe[section] = {**recipe[section], **values}
    YAML(typ="safe").dump(recipe, Path("params.yaml"))


def clearest(root: Path, count: int) -> pd.DataFrame:
    """The snippets that raters are most agreed on."""
    table = pd.read_parquet(root / "datasets/reviews/snippets.parquet")
    return table.loc[table["score"].abs().sort_values(ascending=False, kind="stable").index[:count]]


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    """A folder after every stage, trained on 400 sentences of a CSV file."""
    folder = tmp_path_factory.mktemp("reviews")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        clearest(root, 400).to_csv("reviews.csv", index=False)
        use(root, "reviews.csv", encode={"length": 24})
        for stage in (prepare, fit, score, export, report):
            stage.main()
    return folder


@pytest.fixture
def here(trained, monkeypatch) -> Path:
    """That folder, and the current one."""
    monkeypatch.chdir(trained)
    return trained


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# ── What comes out ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_model_is_better_than_chance(here):
    metrics = read(MODELS / "metrics.json")
    assert metrics["examples"] > 50
    assert metrics["accuracy_low"] > 0.5


@pytest.mark.slow
def test_a_sentence_becomes_a_prediction_with_no_more_than_the_published_files(here):
    inference = read(MODELS / "inference.json")
    tokenizer = Tokenizer.from_file(str(MODELS / inference["tokenizer_path"]))
    session = onnxruntime.InferenceSession(MODELS / "model.onnx", providers=["CPUExecutionProvider"])
    model = engine.load(MODELS / inference["model_path"])
    predictions = pd.read_parquet(MODELS / "predictions.parquet").set_index("id")
    texts = pd.read_csv("reviews.csv")["text"]
    for name in predictions.index[:10]:
        inputs = np.array([tokenizer.encode(texts[int(name.split(":")[1])]).ids], np.int32)
        expected = [predictions.loc[name, f"probability of {label}"] for label in inference["classes"]]
        assert session.run(None, {"input": inputs})[0][0] == pytest.approx(expected, abs=1e-4)
        assert model.predict(inputs, verbose=0)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_inference_json_tells_the_network_by_the_names_that_applications_know(here):
    inference = read(MODELS / "inference.json")
    assert inference["task_type"] == "text"
    assert inference["input"] == {"shape": [24], "dtype": "int32"}
    assert inference["encoder"]["length"] == 24
    parameters = inference["model_parameters"]
    assert parameters["input_dim"] == len(Tokenizer.from_file("src/models/tokenizer.json").get_vocab())
    assert parameters["embedding_dim"] == 100
    assert (parameters["hidden_dim"], parameters["output_dim"], parameters["pad_index"]) == (8, 2, 0)


@pytest.mark.slow
def test_the_report_lets_sentences_be_read(here):
    page = (MODELS / "report/index.html").read_text()
    for row in pd.read_parquet("build/prepared/test/table.parquet")["label"].unique():
        assert row in page
    assert "[UNK]" in page
    for picture in ("correct_predictions", "incorrect_predictions", "predictions", "curves"):
        assert (MODELS / f"report/{picture}.png").stat().st_size > 0


@pytest.mark.slow
def test_training_and_exporting_again_give_the_same_bytes(here):
    names = ["model.keras", "model.onnx", "history.json", "metrics.json", "inference.json", "tokenizer.json"]
    before = [sha256(MODELS / name) for name in names]
    for stage in (prepare, fit, score, export):
        stage.main()
    assert [sha256(MODELS / name) for name in names] == before


@pytest.mark.slow
def test_class_folders_of_text_files_give_the_same_sentences_as_a_table(root, workspace):
    table = clearest(root, 80)
    table.to_parquet("table.parquet")
    for number, (sentence, label) in enumerate(zip(table["text"], table["label"], strict=True)):
        Path("folders", label).mkdir(parents=True, exist_ok=True)
        Path("folders", label, f"{number}.txt").write_text(sentence)
    found = []
    for path in ("table.parquet", "folders"):
        use(root, path)
        prepare.main()
        inputs = np.load("build/prepared/train/inputs.npy")
        found.append((read(Path("build/prepared/data.json"))["test_hash"], sorted(inputs.tolist())))
    assert found[0] == found[1]


# ── What is refused ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def refused(fails) -> Callable[[Callable[[], None]], list[str]]:
    """Runs a stage that must fail and write nothing; returns the lines of its error."""

    def run(main: Callable[[], None]) -> list[str]:
        before = sorted(Path().rglob("*"))
        code, message = fails(main)
        assert code == 1
        assert "Traceback" not in message
        assert {path for path in Path().rglob("*") if path.is_file()} <= {*before}
        return message.removeprefix("error: ").splitlines()

    return run


def test_every_bad_sentence_of_a_table_is_listed_with_its_reason(root, workspace, refused):
    table = clearest(root, 40).reset_index(drop=True)
    table.loc[3, "text"] = "  "
    table.loc[5, "text"] = ""
    table.loc[7, "label"] = None
    table.to_csv("reviews.csv", index=False)
    use(root, "reviews.csv")
    assert refused(prepare.main) == [
        "reviews.csv: 3 of 40 examples cannot be read:",
        "  reviews.csv:3: blank: nothing but white space",
        "  reviews.csv:5: empty",
        "  reviews.csv:7: no label",
        "  Mend or remove them, or set data.on_bad: skip.",
    ]
    use(root, "reviews.csv", data={"path": "reviews.csv", "on_bad": "skip"})
    prepare.main()
    assert len(read(Path("build/prepared/data.json"))["bad"]) == 3


def test_text_files_in_another_encoding_are_listed(root, workspace, refused):
    for number, row in enumerate(clearest(root, 40).itertuples()):
        Path("films", row.label).mkdir(parents=True, exist_ok=True)
        Path("films", row.label, f"{number}.txt").write_text(row.text)
    label = row.label
    Path("films", label, "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    Path("films", label, "nothing.txt").touch()
    use(root, "films")
    assert refused(prepare.main)[1:3] == [
        f"  {label}/latin.txt: expected text in UTF-8, found at position 1: invalid continuation byte",
        f"  {label}/nothing.txt: empty",
    ]


def test_a_table_in_another_encoding_is_one_sentence(root, workspace, refused):
    clearest(root, 40).assign(text="un café").to_csv("reviews.csv", index=False, encoding="latin-1")
    use(root, "reviews.csv")
    (line,) = refused(prepare.main)
    assert line.startswith("reviews.csv: expected csv in UTF-8, found: 'utf-8' codec can't decode byte 0xe9")


def test_a_table_without_a_column_of_sentences_says_which_there_are(root, workspace, refused):
    clearest(root, 40).rename(columns={"text": "words"}).to_csv("reviews.csv", index=False)
    use(root, "reviews.csv")
    (line,) = refused(prepare.main)
    assert line.startswith(
        "data.input: reviews.csv has the columns words, label, score and none of the usual"
    )


def test_a_column_of_numbers_is_no_column_of_sentences(root, workspace, refused):
    clearest(root, 40).to_csv("reviews.csv", index=False)
    use(root, "reviews.csv", data={"path": "reviews.csv", "input": "score"})
    lines = refused(prepare.main)
    assert lines[0] == "reviews.csv: 40 of 40 examples cannot be read:"
    assert lines[1].startswith("  reviews.csv:0: expected text, found ")


def test_the_same_sentence_in_training_and_test_is_a_leak_whatever_its_case(root, workspace, refused):
    table = clearest(root, 40).reset_index(drop=True)
    table["split"] = ["train"] * 30 + ["test"] * 10
    table.loc[35, ["text", "label"]] = table.loc[2, "text"].upper(), table.loc[2, "label"]
    table.to_csv("reviews.csv", index=False)
    use(root, "reviews.csv")
    assert refused(prepare.main)[0] == "reviews.csv: 1 examples stand in two splits:"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("embedding", "sentence"),
    [
        ({"vectors": "nowhere.txt"}, "model.embedding.vectors: nowhere.txt not found; expected word vectors"),
        (
            {"dimension": 50},
            "model.embedding.vectors: v.npy: vectors of 100 numbers, but model.embedding.dimension is 50",
        ),
    ],
)
def test_vectors_that_do_not_fit_stop_the_training_with_one_sentence(
    trained, root, workspace, refused, embedding, sentence
):
    shutil.copytree(trained / "build", "build")
    for suffix in (".npy", ".txt"):
        shutil.copy(root / f"datasets/reviews/vectors{suffix}", f"v{suffix}")
    use(root, "reviews.csv", model={"embedding": {"vectors": "v.npy", **embedding}})
    assert refused(fit.main) == [sentence]
