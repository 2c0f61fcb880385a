"""Time series through the whole pipeline, and what a user meets whose series are not as they should be."""

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src import prepared
from src.evaluate import export, report, score
from src.files import read_json, sha256
from src.tasks.time_series import PADDING
from src.train import fit, prepare


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    """A folder in which the recipe for the vowels ran, for fewer epochs of larger batches."""
    folder = tmp_path_factory.mktemp("vowels")
    content = YAML(typ="safe").load(root / "recipes/vowels.yaml")
    content["data"]["path"] = str(root / content["data"]["path"])
    content["fit"] |= {"epochs": 8, "batch_size": 32, "optimizer": {"learning_rate": 0.01}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        YAML(typ="safe").dump(content, Path("params.yaml"))
        for stage in (prepare, fit, score, export, report):
            stage.main()
    return folder


@pytest.mark.slow
def test_the_declared_splits_are_kept_and_padded_alike(trained, monkeypatch):
    monkeypatch.chdir(trained)
    splits = {name: prepared.Split.open(name) for name in ("train", "validation", "test")}
    assert len(splits["train"]) + len(splits["validation"]) == 270
    assert len(splits["test"]) == 370
    assert {split.inputs.shape[1:] for split in splits.values()} == {(26, 12)}
    steps = (splits["test"].inputs != PADDING).any(axis=2)
    assert (steps.sum(axis=1).min(), steps.sum(axis=1).max()) == (7, 26)
    assert (np.diff(steps.astype(int), axis=1) <= 0).all()  # all of the padding is at the end


@pytest.mark.slow
def test_the_model_has_learned_to_tell_speakers_apart(trained):
    metrics = read_json(trained / "src/models/metrics.json")
    assert metrics["accuracy"] > 0.9
    assert set(metrics["classes"]) == {f"speaker {number}" for number in range(1, 10)}
    inference = read_json(trained / "src/models/inference.json")
    assert inference["input"] == {"shape": [26, 12], "dtype": "float32"}
    assert inference["encoder"]["length"] == 26
    assert len(inference["encoder"]["mean"]) == 12


@pytest.mark.slow
def test_a_raw_series_goes_to_onnx_as_its_encoder_makes_it(trained):
    from src.tasks.time_series import Encoder

    encoder = Encoder.load(trained / "build/prepared")
    rows = pd.read_parquet(
        Path(read_json(trained / "src/models/inference.json")["data"]["path"]) / "test.parquet"
    )
    session = onnxruntime.InferenceSession(trained / "src/models/model.onnx")
    predictions = pd.read_parquet(trained / "src/models/predictions.parquet").set_index("id")
    for number in (0, 100, 369):
        channels = rows[rows["series"] == number].filter(like="cepstrum")
        array = encoder.encode(channels.to_csv(index=False).encode())
        outputs = session.run(None, {session.get_inputs()[0].name: array[None]})[0]
        expected = predictions.loc[f"test.parquet:{number}"].filter(like="probability of ")
        assert outputs[0] == pytest.approx(expected.to_numpy(float), abs=1e-4)


@pytest.mark.slow
def test_training_again_gives_the_same_bytes(trained, monkeypatch):
    monkeypatch.chdir(trained)
    files = [Path("build/prepared/train/inputs.npy"), fit.MODEL, export.ONNX]
    before = [sha256(file) for file in files]
    for stage in (prepare, fit, export):
        stage.main()
    assert [sha256(file) for file in files] == before


@pytest.mark.slow
def test_the_report_shows_series(trained):
    page = (trained / "src/models/report/index.html").read_text()
    assert "<title>Japanese Vowels</title>" in page
    for name in ("curves", "predictions", "correct_predictions", "incorrect_predictions"):
        assert (trained / f"src/models/report/{name}.png").stat().st_size > 2000


# ── Bad input ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def walks(workspace, write_params) -> Path:
    """Class folders of series of two channels that rise or fall, and a params.yaml that says so."""
    draw = np.random.default_rng(0)
    for name, slope in (("falling", -1), ("rising", 1)):
        (workspace / "walks" / name).mkdir(parents=True)
        for number in range(20):
            steps = draw.normal(slope, 1, (draw.integers(8, 13), 2)).cumsum(axis=0)
            np.save(workspace / "walks" / name / f"{number:02}.npy", steps)
    write_params(
        task="time_series", data={"path": "walks", "validation": 0.25, "test": 0.25}, encode=None, model=None
    )
    return workspace / "walks"


def refused(fails, *words: str) -> str:
    """Runs prepare, which must fail and say these words, and write nothing."""
    code, message = fails(prepare.main)
    assert code == 1
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert not list(Path("build").glob("*"))
    return message


def test_every_bad_series_is_listed_with_its_reason(walks, fails):
    np.save(walks / "rising/one.npy", np.ones((9, 1)))
    np.save(walks / "rising/gap.npy", np.array([[1, 2], [3, np.nan]]))
    np.save(walks / "rising/pickle.npy", np.array([{}]), allow_pickle=True)
    np.save(walks / "falling/none.npy", np.ones((0, 2)))
    (walks / "falling/text.csv").write_text("1,2\n3,four\n")
    message = refused(
        fails,
        "walks: 4 of 45 examples cannot be read:",
        "rising/gap.npy: step 2 of 2, channel 2: found nan, expected a finite number in float32",
        "rising/pickle.npy: expected a whole .npy file of numbers, found: Object arrays cannot be loaded",
        "falling/none.npy: 0 steps of 2 channels, expected at least one",
        "falling/text.csv: step 2 of 2, channel '2': found four, expected a finite number in float32",
        "set data.on_bad: skip",
    )
    assert len(message.splitlines()) == 6


def test_a_series_of_other_channels_is_listed_or_left_out(walks, write_params, fails, capsys):
    np.save(walks / "rising/one.npy", np.ones((9, 1)))
    refused(fails, "walks: 1 of 41 examples cannot be read:", "rising/one.npy: 1 channels, expected 2 as in")
    write_params(
        task="time_series",
        data={"path": "walks", "validation": 0.25, "test": 0.25, "on_bad": "skip"},
        encode=None,
        model=None,
    )
    prepare.main()
    assert sum(len(prepared.Split.open(name)) for name in ("train", "validation", "test")) == 40
    assert [bad["id"] for bad in read_json("build/prepared/data.json")["bad"]] == ["rising/one.npy"]
    assert "skipped 1 unreadable examples" in capsys.readouterr().out


def test_a_table_says_what_is_wrong_with_its_columns_and_its_series(workspace, write_params, fails):
    rows = pd.DataFrame(
        {
            "trip": np.repeat(np.arange(40), 3),
            "minute": np.tile([0, 1, 2], 40),
            "speed": np.arange(120.0) % 17,
            "mode": np.repeat(["bus", "car"], 60),
        }
    )
    rows.to_csv("trips.csv", index=False)

    def choose(**options: str) -> None:
        write_params(task="time_series", data={"path": "trips.csv", **options}, encode=None, model=None)

    choose()
    refused(
        fails, "data.input: trips.csv has the columns trip, minute, speed, mode and none of the usual series"
    )
    choose(input="trip")
    refused(
        fails, "data.label: trips.csv has the columns trip, minute, speed, mode and none of the usual label"
    )
    choose(input="trip", label="mode", order="hour")
    refused(
        fails,
        "data.order: trips.csv has no column 'hour', beside those of series and label only minute, speed",
    )
    rows.loc[4, "mode"] = "tram"
    rows["speed"] = rows["speed"].astype(object)
    rows.loc[10, "speed"] = "fast"
    rows.to_csv("trips.csv", index=False)
    choose(input="trip", label="mode", order="minute")
    refused(
        fails,
        "trips.csv: 2 of 40 examples cannot be read:",
        "trips.csv:1: label bus and tram, expected the same in all its rows",
        "trips.csv:3: step 2 of 3, channel 'speed': found fast, expected a finite number",
    )


def test_a_broken_line_of_a_ts_file_is_said_by_file_and_number(workspace, root, write_params, fails):
    lines = ["@problemName walks", "@classLabel true up down", "@data"]
    lines += [f"{n},{n + 1},{n + 3}:{label}" for n, label in enumerate(["up", "down"] * 20)]
    lines[8] = "1,2,x:up"
    Path("walks.ts").write_text("\n".join(lines))
    write_params(task="time_series", data={"path": "walks.ts"}, encode=None, model=None)
    refused(fails, "walks.ts:9: could not convert string to float: 'x', expected numbers between commas")
