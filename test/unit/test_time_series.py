"""Time series: the same from every layout, padded and cut, standardised by real steps; what is refused."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from src.dataset import content
from src.errors import BadExampleError, UserError
from src.params import Data
from src.tasks import time_series
from src.tasks.time_series import PADDING, Encoder, Options

TS = """#spoken
@problemName Spoken
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true a b
@data
1.5,2.5,3.5:0.5,0.25,0.125:a
-1,-2:7,8e-1:b
"""


@pytest.fixture(scope="session")
def vowels(root) -> pd.DataFrame:
    """Twelve utterances of two speakers, in long form."""
    rows = pd.read_parquet(root / "datasets/vowels/train.parquet")
    return rows[rows["series"].isin([*range(6), *range(30, 36)])]


def read(path: Path, spool: Path, **options: Any) -> pd.DataFrame:
    """Reads a dataset as `prepare` does."""
    folder = spool / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return time_series.read(Data(path=str(path), **options), folder)


def values(table: pd.DataFrame) -> list[np.ndarray]:
    """The series of a table, each at its own length."""
    series = []
    for cell in table["input"]:
        array = Encoder.learn([content(cell)], Options()).encode(content(cell))
        series.append(array)
    return series


def reasons(table: pd.DataFrame) -> dict[str, str]:
    """Why series are refused, by id."""
    found = {}
    for name, cell in zip(table["id"], table["input"], strict=True):
        try:
            time_series.digest(content(cell))
        except BadExampleError as error:
            found[name] = str(error)
    return found


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


# ── Layouts ────────────────────────────────────────────────────────────────────────────────────────────


def write_folders(folder: Path, vowels: pd.DataFrame, suffix: str) -> None:
    """A file for each series, below the folder of its class."""
    for name, rows in vowels.groupby("series"):
        target = folder / rows["label"].iloc[0]
        target.mkdir(parents=True, exist_ok=True)
        channels = rows.filter(like="cepstrum")
        if suffix == "npy":
            np.save(target / f"{name}.npy", channels.to_numpy())
        elif suffix == "named.csv":
            rows[["step", *channels]].to_csv(target / f"{name}.csv", index=False)
        else:
            channels.to_csv(target / f"{name}.csv", index=False, header=False)


def write_ts(path: Path, vowels: pd.DataFrame) -> None:
    lines = ["# a comment", "@problemName vowels", "@classLabel true speaker_1 speaker_2", "@data"]
    for _, rows in vowels.groupby("series"):
        channels = rows.filter(like="cepstrum").astype(str)
        dimensions = [",".join(channels[name]) for name in channels]
        lines.append(":".join([*dimensions, rows["label"].iloc[0].replace(" ", "_")]))
    path.write_text("\n".join(lines) + "\n")


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, Path("wrapped") / file.relative_to(folder))
    return path


def test_the_same_series_are_the_same_examples_in_every_layout(vowels, tmp_path):
    vowels.to_csv(tmp_path / "long.csv", index=False)
    vowels.to_parquet(tmp_path / "long.parquet")
    for suffix in ("npy", "csv", "named.csv"):
        write_folders(tmp_path / suffix, vowels, suffix)
    (tmp_path / "ts").mkdir()
    write_ts(tmp_path / "ts/vowels.ts", vowels)
    zipped(tmp_path / "folders.zip", tmp_path / "npy")
    zipped(tmp_path / "ts.zip", tmp_path / "ts")
    layouts = [
        "long.csv",
        "long.parquet",
        "npy",
        "csv",
        "named.csv",
        "ts",
        "ts/vowels.ts",
        "folders.zip",
        "ts.zip",
    ]
    found = {}
    for name in layouts:
        table = read(tmp_path / name, tmp_path)
        labels = table["label"].str.replace("_", " ")
        digests = [time_series.digest(content(cell)) for cell in table["input"]]
        found[name] = sorted(zip(labels, digests, strict=True))
        assert table["id"].is_unique
        assert "split" not in table
    assert len(set(found["npy"])) == 12
    for name in layouts:
        assert found[name] == found["npy"], name


def test_files_and_folders_named_after_splits_declare_them(vowels, tmp_path):
    train, test = vowels[vowels["series"] % 3 > 0], vowels[vowels["series"] % 3 == 0]
    for folder in ("ts", "long", "folders"):
        (tmp_path / folder).mkdir()
    for name, rows in (("train", train), ("test", test)):
        write_ts(tmp_path / f"ts/Vowels_{name.upper()}.ts", rows)
        rows.to_parquet(tmp_path / f"long/{name}.parquet")
        write_folders(tmp_path / "folders" / name, rows, "npy")
    (tmp_path / "ts/Vowels.txt").write_text("About the vowels")
    for folder in ("ts", "long", "folders"):
        table = read(tmp_path / folder, tmp_path)
        assert table["split"].value_counts().to_dict() == {"train": 8, "test": 4}
        assert table.attrs["ignored"] == (["Vowels.txt"] if folder == "ts" else [])


def test_two_files_in_long_form_may_number_their_series_alike(vowels, tmp_path):
    (tmp_path / "long").mkdir()
    for name, speaker in (("train", "speaker 1"), ("test", "speaker 2")):
        rows = vowels[vowels["label"] == speaker]
        rows.assign(series=rows["series"] % 30).to_csv(tmp_path / f"long/{name}.csv", index=False)
    table = read(tmp_path / "long", tmp_path)
    assert table["id"].tolist() == [f"{name}.csv:{n}" for name in ("test", "train") for n in range(6)]
    assert len({time_series.digest(content(cell)) for cell in table["input"]}) == 12


def test_rows_are_sorted_by_number_or_date_and_not_by_where_they_stand(vowels, tmp_path):
    expected = [array.tolist() for array in values(read_long(tmp_path, vowels))]
    shuffled = vowels.sample(frac=1, random_state=0)
    in_turn = shuffled.sort_values("series", kind="stable")  # the order of the series is that of their rows
    assert [array.tolist() for array in values(read_long(tmp_path, in_turn))] == expected
    # As text, 2024-01-02 10:00 comes before 2024-01-02 9:00:00.5 and behind 2024-01-01.
    dates = pd.Timestamp("2024-02-28") + pd.to_timedelta(in_turn["step"] * 7.5, unit="h")
    dated = in_turn.assign(step=dates.astype(str)).rename(columns={"step": "timestamp"})
    assert [array.tolist() for array in values(read_long(tmp_path, dated))] == expected


def read_long(folder: Path, rows: pd.DataFrame, **options: Any) -> pd.DataFrame:
    rows.to_csv(folder / "long.csv", index=False)
    return read(folder / "long.csv", folder, **options)


def test_columns_of_unusual_names_are_named_and_others_stay_for_slices(tmp_path):
    rows = pd.DataFrame(
        {
            "trip": ["b", "b", "a", "a", "a"],
            "minute": [1, 0, 0, 2, 1],
            "speed": [5.0, 4.0, 1.0, 3.0, 2.0],
            "heat": [0, 0, 1, 1, 2],
            "age": [30, 30, 40, 40, 40],
            "driver": ["Eve", "Eve", "Bob", "Bob", "Bob"],
            "note": ["", "x", "y", "", "z"],
            "mode": ["bus", "bus", "car", "car", "car"],
        }
    )
    names = {"input": "trip", "order": "minute", "label": "mode", "columns": ["heat", "speed"]}
    table = read_long(tmp_path, rows, **names)
    assert table.drop(columns="input").to_dict("list") == {
        "label": ["bus", "car"],
        "age": [30, 40],
        "driver": ["Eve", "Bob"],
        "id": ["long.csv:b", "long.csv:a"],
    }
    assert [array.tolist() for array in values(table)] == [
        [[0.0, 4.0], [0.0, 5.0]],
        [[1.0, 1.0], [2.0, 2.0], [1.0, 3.0]],
    ]


def test_what_is_numeric_is_a_channel_unless_said_otherwise(tmp_path):
    rows = pd.DataFrame({"id": [0, 0, 1], "t": [2, 1, 1], "up": [True, False, True], "label": [7, 7, 8]})
    table = read_long(tmp_path, rows.assign(place="hall", x=1.5))
    assert table["place"].tolist() == ["hall", "hall"]
    assert table["label"].tolist() == [7, 8]
    assert [array.tolist() for array in values(table)] == [[[0.0, 1.5], [1.0, 1.5]], [[1.0, 1.5]]]
    # A column called t is no time where it is named as a channel.
    table = read_long(tmp_path, rows, columns=["t"])
    assert [array.tolist() for array in values(table)] == [[[2.0], [1.0]], [[1.0]]]


def test_a_table_may_hold_series_as_npy_bytes(tmp_path):
    series = [np.arange(4.0), np.ones((2, 1))]
    pd.DataFrame({"series": [npy(each) for each in series], "label": ["a", "b"]}).to_parquet(
        tmp_path / "s.parquet"
    )
    table = read(tmp_path / "s.parquet", tmp_path)
    assert [len(array) for array in values(table)] == [4, 2]


def test_ts_lines_are_read_whatever_their_labels_are(tmp_path):
    path = tmp_path / "spoken.TS"
    path.write_text(TS)
    table = read(path, tmp_path)
    assert table["id"].tolist() == ["spoken.TS:10", "spoken.TS:11"]
    assert table["label"].tolist() == ["a", "b"]
    assert values(table)[1].tolist() == pytest.approx(np.array([[-1, 7], [-2, 0.8]]))
    path.write_text(
        TS.replace("@classLabel true a b", "@targetLabel true").replace(":a", ":1").replace(":b", ":-2")
    )
    assert read(path, tmp_path)["label"].tolist() == [1.0, -2.0]
    assert read(path, tmp_path)["label"].dtype == float


# ── Encoding ───────────────────────────────────────────────────────────────────────────────────────────


def test_series_are_padded_at_the_end_and_cut_where_it_is_said():
    short, long = np.array([1.0, 2.0]), np.arange(10.0, 16.0)
    encoder = Encoder.learn(map(npy, (short, np.arange(4.0))), Options())
    assert (encoder.shape, encoder.dtype) == ((4, 1), "float32")
    assert encoder.encode(npy(short)).ravel().tolist() == [1.0, 2.0, PADDING, PADDING]
    assert encoder.encode(npy(long)).ravel().tolist() == [10.0, 11.0, 12.0, 13.0]
    encoder = Encoder.learn([npy(short)], Options(length=3, cut="start"))
    assert encoder.encode(npy(long)).ravel().tolist() == [13.0, 14.0, 15.0]
    assert encoder.encode(npy(short)).ravel().tolist() == [1.0, 2.0, PADDING]
    assert np.float32(PADDING) == PADDING


def test_statistics_are_those_of_the_real_steps_that_are_kept(vowels, tmp_path):
    cells = [content(cell) for cell in read_long(tmp_path, vowels)["input"]]
    steps = vowels.filter(like="cepstrum").to_numpy(np.float64)
    encoder = Encoder.learn(iter(cells), Options())
    assert encoder.shape == (vowels.groupby("series").size().max(), 12)
    assert encoder.mean == pytest.approx(steps.mean(axis=0), rel=1e-6)
    assert encoder.deviation == pytest.approx(steps.std(axis=0), rel=1e-6)
    masking, rescaling = encoder.layers
    assert masking == {"Masking": {"mask_value": PADDING}}
    standard = steps * rescaling["Rescaling"]["scale"] + rescaling["Rescaling"]["offset"]
    assert standard.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert standard.std(axis=0) == pytest.approx(1, abs=1e-6)
    first = vowels[vowels["step"] < 5].filter(like="cepstrum").to_numpy(np.float64)
    assert Encoder.learn(iter(cells), Options(length=5)).mean == pytest.approx(first.mean(axis=0), rel=1e-6)


def test_statistics_are_right_where_numbers_are_large_and_a_constant_channel_is_only_moved():
    series = np.random.default_rng(0).normal([1e6, 0.1, 0], [1, 0, 1e-9], (1000, 3))
    encoder = Encoder.learn([npy(part) for part in np.array_split(series, 7)], Options())
    small = series.astype(np.float32).astype(np.float64)
    assert encoder.mean == pytest.approx(small.mean(axis=0), rel=1e-12, abs=1e-20)
    assert encoder.deviation == pytest.approx([small[:, 0].std(), 1, small[:, 2].std()], rel=1e-6)


def test_a_very_long_series_is_not_learned_as_the_length_unasked():
    with pytest.raises(
        UserError, match=r"^encode\.length: the longest training series has 10,001 steps, more"
    ):
        Encoder.learn([npy(np.zeros(10_001))], Options())
    assert Encoder.learn([npy(np.zeros(10_001))], Options(length=20_000)).shape == (20_000, 1)


def test_other_channels_than_those_of_the_first_series_are_refused(tmp_path):
    two = npy(np.ones((3, 2)))
    encoder = Encoder.learn([two, npy(np.ones((9, 3))), two], Options())
    assert encoder.shape == (3, 2)
    with pytest.raises(BadExampleError, match=r"^3 channels, expected 2 as in the first series to train on$"):
        encoder.encode(npy(np.ones((9, 3))))
    encoder = Encoder.learn([b"time,x,y\n0,1,2\n1,3,4\n"], Options())
    encoder.save(tmp_path)
    encoder = Encoder.load(tmp_path)
    assert encoder.encode(b"x,y\r\n5,6\r\n").tolist() == [[5, 6], [PADDING, PADDING]]
    assert encoder.encode(b"5,6\n7,8").tolist() == [[5, 6], [7, 8]]
    with pytest.raises(BadExampleError, match=r"^channels y, x, expected x, y$"):
        encoder.encode(b"y,x\n5,6\n")


def test_a_digest_is_that_of_the_values_alone():
    series = np.array([[0.1, -0.0], [2.5, 3.0]])
    same = [
        npy(series),
        npy(series.astype(np.float32)),
        npy(np.asfortranarray(series)),
        npy(np.abs(series)),
        b"0.1,0\n2.5,3",
        b"\xef\xbb\xbf0.1,0\r\n2.5,3\r\n",
        b"a,a\n0.1,0\n2.5,3\n",
        b"\xef\xbb\xbfa,b\n1e-1,-0.0\n2.50,3\n",
        b"timestamp,a,b\n2024-01-01,0.1,0\n2024-01-02,2.5,3\n",
    ]
    assert len({time_series.digest(raw) for raw in same}) == 1
    others = [npy(series.T), npy(series.ravel()), npy(series.reshape(1, 4)), npy(series[:1])]
    assert len({time_series.digest(raw) for raw in [*same, *others]}) == 5


def test_a_drawing_has_a_curve_for_each_channel_and_none_through_the_padding():
    encoder = Encoder.learn([npy(np.random.default_rng(0).normal(50, 9, (20, 3)))], Options())
    axes = Figure().subplots()
    encoder.draw(axes, encoder.encode(npy(np.full((5, 3), 59.0))))
    assert [np.size(line.get_xdata()) for line in axes.lines] == [5, 5, 5]
    low, high = axes.get_ylim()
    assert -5 < low < high < 5
    assert axes.get_xlim() == (0, 19)


# ── What is refused ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (npy(np.zeros(0)), "0 steps of 1 channels, expected at least one"),
        (npy(np.zeros((0, 3))), "0 steps of 3 channels"),
        (npy(np.zeros((3, 0))), "3 steps of 0 channels"),
        (npy(np.array([[1, 2], [3, np.nan]])), "step 2 of 2, channel 2: found nan, expected a finite number"),
        (npy(np.array([1, np.inf])), "step 2 of 2, channel 1: found inf"),
        (npy(np.array([1, 2, -1e300])), r"step 3 of 3, channel 1: found -1e\+300"),
        (npy(np.array([PADDING, 1.0])), "step 1 of 2, channel 1: found -1000000000.0, .* stands for padding"),
        (npy(np.zeros((2, 2, 2))), r"expected \(steps,\) or .*, found 2 × 2 × 2 of float64"),
        (npy(np.float64(3)), r"expected \(steps,\)"),
        (npy(np.array(["a", "b"])), "of numbers, found 2 of <U1"),
        (npy(np.array([1j])), "of numbers, found 1 of complex128"),
        (npy(np.array([{"a": 1}]), allow_pickle=True), "found: Object arrays cannot be loaded"),
        (npy(np.ones(9))[:-4], "expected a whole .npy file of numbers, found: "),
        (npy(np.ones(9))[:20], "expected a whole .npy file of numbers, found: "),
        (b"", "^empty$"),
        (b"x,y\n", "no steps, expected at least one"),
        (b"x,y\n1,2\n1,b\n", "step 2 of 2, channel 'y': found b, expected a finite number"),
        (b"x,y\n1,2\n1,\n", "step 2 of 2, channel 'y': found nan"),
        (b"x,y\n1,2\n3,4,5\n", "expected CSV in UTF-8, found: .*Expected 2 fields in line 3, saw 3"),
        (b"1,2\n3,4,5\n", "expected CSV in UTF-8, found: .*Expected 2 fields in line 2, saw 3"),
        (b"x,y\n1,2,3\n", "rows of 3 values, expected 2 as in the first one"),
        (b"time\n1\n2\n", "2 steps of 0 channels"),
        (b"\xff\xfe\x00", "expected CSV in UTF-8, found: 'utf-8' codec"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(raw, reason):
    with pytest.raises(BadExampleError, match=reason):
        time_series.digest(raw)


def test_series_of_a_table_are_refused_one_by_one(tmp_path):
    rows = pd.DataFrame(
        [
            ("good", 0, 1, "a"),
            ("good", 1, 2, "a"),
            ("labels", 0, 1, "a"),
            ("labels", 1, 2, "b"),
            ("text", 0, "1", "a"),
            ("text", 1, "high", "a"),
            ("gap", 0, None, "b"),
            ("twice", 3, 1, "b"),
            ("twice", 3, 1, "b"),
            ("never", 0, 1, "b"),
            ("never", None, 1, "b"),
            ("unlabelled", 0, 1, None),
        ],
        columns=["case", "step", "x", "label"],
    )
    table = read_long(tmp_path, rows)
    assert reasons(table) == {
        "long.csv:labels": "label a and b, expected the same in all its rows",
        "long.csv:text": reasons(table)["long.csv:text"],
        "long.csv:gap": reasons(table)["long.csv:gap"],
        "long.csv:twice": "two rows have the step 3.0",
        "long.csv:never": "a row has no step",
    }
    assert reasons(table)["long.csv:text"].startswith(
        "step 2 of 2, channel 'x': found high, expected a finite"
    )
    assert reasons(table)["long.csv:gap"].startswith("step 1 of 1, channel 'x': found nan, expected a finite")
    assert pd.isna(table.set_index("id").loc["long.csv:unlabelled", "label"])  # prepare says so


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (
            {"series": "case_number"},
            {},
            ["none of the usual series, series_id, case, id", "case_number, step, x, "],
        ),
        ({}, {"input": "serie"}, ["no column 'serie', only", "did you mean 'series'?"]),
        ({}, {"order": "stp"}, ["data.order: ", "no column 'stp'", "only step, x, y; did you mean 'step'?"]),
        ({}, {"columns": ["x", "z"]}, ["data.columns: ", "no column 'z'", "only step, x, y"]),
        ({"label": "what"}, {}, ["data.label: ", "series, step, x, y, what"]),
    ],
)
def test_a_missing_column_is_said_beside_those_that_are_there(tmp_path, change, options, words):
    rows = pd.DataFrame({"series": [1, 1], "step": [0, 1], "x": [0.5, 1], "y": [3, 4], "label": ["a", "a"]})
    if "label" in change:
        rows["y"] = rows.pop("y")  # y is a usual name of a label
        change = {**change, "y": "why"}
        words = [words[0], "series, step, x, what, why"]
    with pytest.raises(UserError) as error:
        read_long(tmp_path, rows.rename(columns=change), **options)
    for word in words:
        assert word in str(error.value)


def test_tables_that_cannot_be_put_together_are_refused_whole(tmp_path):
    rows = pd.DataFrame({"series": [1, 1], "time": ["soon", "late"], "x": [0.5, 1], "label": ["a", "a"]})
    with pytest.raises(UserError, match=r"found 'soon' in 'time', the column that sorts the steps; expected"):
        read_long(tmp_path, rows)
    with pytest.raises(UserError, match=r"found no column beside series, order and label, expected channels"):
        read_long(tmp_path, rows.assign(time=[0, 1]).drop(columns="x"))
    with pytest.raises(UserError, match=r"long\.csv:1 names no series, expected a name in each row"):
        read_long(tmp_path, rows.assign(series=["1", None]))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "-1,-2:7,8e-1:b",
            "-1,x:7,8:b",
            "could not convert string to float: 'x', expected numbers between commas",
        ),
        ("-1,-2:7,8e-1:b", "-1,?:7,8:b", "step 2 of 2, channel 1: found nan, expected a finite number"),
        ("-1,-2:7,8e-1:b", "-1,-2:7:b", "dimensions of [1, 2] values, expected one length"),
        ("-1,-2:7,8e-1:b", ":b", "0 steps of 1 channels, expected at least one"),
        ("-1,-2:7,8e-1:b", "-1,-2:7,8e-1:c", "found the label 'c', expected one of a, b"),
        ("-1,-2:7,8e-1:b", "nonsense", "found the label 'nonsense', expected one of a, b"),
    ],
)
def test_a_broken_line_of_a_ts_file_is_named_by_its_number(tmp_path, old, new, reason):
    (tmp_path / "spoken.ts").write_text(TS.replace(old, new))
    (found,) = reasons(read(tmp_path / "spoken.ts", tmp_path)).items()
    assert found[0] == "spoken.ts:11"
    assert found[1].startswith(reason)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data\n", "", "spoken.ts:9: found '1.5,2.5,3.5:0.5,0.25,0.125:a' before @data"),
        ("@data", "@date", "spoken.ts:10: found '1.5"),
        (TS[TS.index("@data") :], "", "spoken.ts: found no line @data, expected a whole .ts file"),
        (TS[TS.index("1.5") :], "", "found no line below @data, expected a series in each"),
        (
            "@classLabel true a b",
            "@classLabel false",
            "spoken.ts: found no labels, expected @classLabel true",
        ),
        (
            "@timeStamps false",
            "@timeStamps true",
            "spoken.ts: found @timeStamps true, expected values without",
        ),
    ],
)
def test_a_ts_file_of_another_kind_is_refused_whole(tmp_path, old, new, message):
    (tmp_path / "spoken.ts").write_text(TS.replace(old, new))
    with pytest.raises(UserError) as error:
        read(tmp_path / "spoken.ts", tmp_path)
    assert message in str(error.value)


def test_ts_files_of_two_datasets_are_not_mixed(tmp_path):
    for name in ("Spoken_TRAIN", "Spoken_eq_TRAIN"):
        (tmp_path / f"{name}.ts").write_text(TS)
    with pytest.raises(UserError, match=r"found the datasets spoken, spoken_eq, expected \.ts files of one"):
        read(tmp_path, tmp_path)
