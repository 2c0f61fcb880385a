"""Rows become numbers: what each column holds is learned, whatever is missing, rare, new or wrong in it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.preprocessing import StandardScaler

from src.dataset import content
from src.errors import BadExampleError, UserError
from src.params import Data
from src.tasks import tabular
from src.tasks.tabular import Encoder, Options

ROOT = Path(__file__).parents[2]

# Departures of trains: a number, names, a code, and a date, each missing somewhere.
TRAINS = """id,minutes late,line,platform,day,label
a1,3.5,S1,4,2024-01-31,yes
a2,,S2,4,2024-02-29,no
a3,12,S1,7,,yes
a4,0.5,,12,2023-12-25,no
a5,7,S1,7,2024-03-01,no
a6,8,S3,12,2024-03-02,yes
"""


def rows(text: str, **data: Any) -> list[dict[str, Any]]:
    """The raw inputs of a CSV file."""
    Path("table.csv").write_text(text)
    return raws("table.csv", **data)


def raws(path: str, **data: Any) -> list[dict[str, Any]]:
    return [content(cell) for cell in read(path, **data)["input"]]


def read(path: str, **data: Any) -> pd.DataFrame:
    Path("spool").mkdir(exist_ok=True)
    return tabular.read(Data(path=path, **data), Path("spool"))


def learn(text: str, **options: Any) -> Encoder:
    return Encoder.learn(rows(text), Options(**options))


def column(name: str, values: list[Any]) -> list[dict[str, Any]]:
    """Rows of one column, and of another that varies."""
    return [{name: value, "number": position} for position, value in enumerate(values)]


def parts(encoder: Encoder, value: Any) -> list[float]:
    """What the first column gives for a value."""
    raw = {encoder.columns[0].name: value, "number": 1}
    return encoder.encode(raw)[: encoder.columns[0].size].tolist()


def normalised(encoder: Encoder, inputs: np.ndarray) -> np.ndarray:
    """What the network's first layers make of encoded rows."""
    first, second = (layer["Rescaling"] for layer in encoder.layers)
    return (inputs + first["offset"]) * second["scale"]


@pytest.fixture
def cancer() -> list[dict[str, Any]]:
    """The measures of 569 real breast masses."""
    table = pd.read_csv(ROOT / "datasets/breast-cancer/breast-cancer.csv")
    return table.drop(columns="label").to_dict("records")


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_column_but_the_label_and_the_id_is_input_and_stays_in_the_table(workspace):
    raw = rows(TRAINS)[1]
    assert raw == {"minutes late": None, "line": "S2", "platform": 4, "day": "2024-02-29"}
    table = read("table.csv")
    assert list(table.columns) == ["id", "minutes late", "line", "platform", "day", "label", "input"]
    assert table["id"].tolist() == ["a1", "a2", "a3", "a4", "a5", "a6"]


def test_ids_that_are_not_unique_give_way_to_file_and_row(workspace):
    Path("table.csv").write_text(TRAINS.replace("a2,", "a1,"))
    assert read("table.csv")["id"].tolist()[:2] == ["table.csv:0", "table.csv:1"]
    Path("table.csv").write_text(TRAINS.replace("a2,", ","))
    assert read("table.csv")["id"].tolist()[:2] == ["table.csv:0", "table.csv:1"]


def test_any_column_can_be_the_label_and_those_called_label_or_input_are_features_then(workspace):
    (raw,) = rows("input,label,digest,rain\n1,2,x,yes\n", label="rain")
    assert raw == {"input": 1, "label": 2}
    assert read("table.csv", label="rain")["label"].tolist() == ["yes"]


def test_csv_and_parquet_give_the_same_digests(workspace):
    Path("table.csv").write_text(TRAINS)
    pd.read_csv("table.csv", parse_dates=["day"]).to_parquet("table.parquet")
    assert [*map(tabular.digest, raws("table.csv"))] == [*map(tabular.digest, raws("table.parquet"))]


def test_parquet_keeps_dates_truth_values_and_media_apart(workspace):
    table = pd.DataFrame(
        {
            "day": [date(2024, 1, 31), None],
            "moment": pd.to_datetime(["2024-01-31 10:30", None]),
            "open": pd.array([True, None], "boolean"),
            "photo": [b"\xff\xd8", b""],
            "label": ["a", "b"],
        }
    )
    table.to_parquet("table.parquet")
    first, second = raws("table.parquet")
    assert first == {"day": date(2024, 1, 31), "moment": pd.Timestamp("2024-01-31 10:30"), "open": True}
    assert second == {"day": None, "moment": None, "open": None}


def test_files_called_like_splits_declare_them_and_may_differ_in_type(workspace):
    Path("data").mkdir()
    Path("data/train.csv").write_text("size,label\n1,a\n2,b\n")
    Path("data/test.csv").write_text("size,label\nlarge,a\n3,b\n")
    table = read("data")
    assert table["split"].tolist() == ["test", "test", "train", "train"]
    assert [content(cell)["size"] for cell in table["input"]] == ["large", "3", "1", "2"]
    table.drop(columns="input").to_parquet("written.parquet")


WRONG = {
    "two columns of one name": (b"a,b,a,label\n1,2,3,x\n", "table.csv: two columns are called 'a'"),
    "more values than names": (b"a,label\n1,2,x\n3,4,y\n", "table.csv: its rows have more values than its"),
    "Latin-1": ("größe,label\n1,x\n".encode("latin-1"), "table.csv: expected csv in UTF-8, found:"),
    "nothing": (b"", "table.csv: expected csv in UTF-8, found:"),
    "no label": (
        b"size,lable\n1,x\n",
        "data.label: table.csv has the columns size, lable and none of the usual",
    ),
}


@pytest.mark.parametrize(("data", "sentence"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_clear_table_is_one_sentence(workspace, data, sentence):
    Path("table.csv").write_bytes(data)
    with pytest.raises(UserError) as error:
        read("table.csv")
    assert str(error.value).startswith(sentence)


def test_parquet_with_two_columns_of_one_name_is_refused(workspace):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table([[1], [2], ["x"]], ["a", "a", "label"]), "table.parquet")
    with pytest.raises(UserError, match=r"table\.parquet: two columns are called 'a'"):
        read("table.parquet")


def test_what_is_not_there_is_named_with_the_nearest(workspace):
    Path("table.csv").write_text(TRAINS)
    with pytest.raises(UserError, match=r"no column 'lin', only id, minutes late, .*did you mean 'line'\?"):
        read("table.csv", label="lin")
    with pytest.raises(UserError, match=r"data\.input: found 'line', expected none"):
        read("table.csv", input="line")
    with pytest.raises(UserError, match=r"data\.path: found no table at nowhere, expected CSV or Parquet"):
        read("nowhere")


def test_files_with_other_columns_are_refused(workspace):
    Path("data").mkdir()
    Path("data/a.csv").write_text("size,label\n1,a\n")
    Path("data/b.csv").write_text("size,colour,label\n1,red,b\n")
    with pytest.raises(UserError, match=r"data/b\.csv: column 'colour' is not in both it and data/a\.csv"):
        read("data")


# ── Digests ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_digest_is_of_the_values_whatever_their_order():
    assert tabular.digest({"a": 1, "b": "x"}) == tabular.digest({"b": "x", "a": 1.0})
    others = [{"a": 1, "b": "y"}, {"a": "x", "b": 1}, {"a": 1, "c": "x"}, {"a": None, "b": "x"}]
    assert len({tabular.digest(raw) for raw in [{"a": 1, "b": "x"}, *others]}) == 5


def test_a_row_of_nothing_is_refused():
    with pytest.raises(BadExampleError, match="no value in any column"):
        tabular.digest({"a": None, "b": " ", "c": float("nan")})


# ── Numbers ────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_raw_and_the_network_normalises_them_as_scikit_learn_does(cancer):
    encoder = Encoder.learn(cancer, Options())
    inputs = np.stack([encoder.encode(raw) for raw in cancer])
    expected = pd.DataFrame(cancer).to_numpy()
    assert np.array_equal(inputs, expected.astype(np.float32))
    assert normalised(encoder, inputs) == pytest.approx(StandardScaler().fit_transform(expected), abs=1e-4)
    assert encoder.warnings == []


def test_a_missing_number_is_the_median_with_an_indicator_where_training_has_such(workspace):
    encoder = learn(TRAINS, columns=["minutes late", "platform"], categorical=["platform"])
    row = {"minutes late": None, "platform": 4}
    assert encoder.encode(row)[:2].tolist() == [7, 1]
    assert encoder.encode({**row, "minutes late": 5})[:2].tolist() == [5, 0]
    complete = Encoder.learn(column("size", [1, 2, 6]), Options())
    assert parts(complete, None) == [2]


def test_words_and_numbers_that_stand_for_missing_can_be_given():
    values = [1, "NA", " ? ", -999, 3, 2] + [2.0] * 20
    assert parts(Encoder.learn(column("size", values), Options(missing=[-999, "na", "?"])), -999.0) == [2, 1]
    assert parts(Encoder.learn(column("size", values), Options()), -999) == [-999, 0]


def test_numbers_written_as_text_are_numbers():
    encoder = Encoder.learn(column("size", ["1", " 2.5", "-3e2", 4]), Options())
    assert parts(encoder, "1e1") == [10]


@pytest.mark.parametrize(
    "value", [float("inf"), "-inf", 1e39, 10**400, "about 5", True, [1], "1_000", date(2024, 1, 1)]
)
def test_what_is_no_finite_number_is_refused_in_a_column_of_numbers(value):
    encoder = Encoder.learn(column("size", [1, 2, 3, float("inf")]), Options())
    with pytest.raises(BadExampleError) as error:
        parts(encoder, value)
    assert str(error.value) == f"column 'size': found {value!r}, expected a finite number"


def test_stray_text_among_numbers_is_an_error_up_to_a_tenth_and_makes_names_beyond():
    few = Encoder.learn(column("size", [*map(str, range(30)), "x"]), Options())
    assert few.columns[0].kind == "numbers"
    with pytest.raises(BadExampleError, match="column 'size': found 'x', expected a finite number"):
        parts(few, "x")
    many = Encoder.learn(column("size", [*map(str, range(30)), *["x"] * 9]), Options())
    assert many.columns[0].kind == "names"
    assert many.columns[0].describe(parts(many, "x")) == "x"


def test_a_number_that_float32_can_hardly_tell_is_said():
    encoder = Encoder.learn(column("stamp", [1e9, 1e9 + 64, 1e9 + 128]), Options())
    assert encoder.warnings == [
        "column 'stamp' varies by 52 around 1e+09: float32 can hardly tell; subtract that"
    ]


# ── Names ──────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_one_hot_the_most_frequent_first_and_rare_and_new_ones_are_one():
    values = ["b", "c", "a", "b", "c", "b", "d"]
    encoder = Encoder.learn(column("kind", values), Options(categories=3))
    assert encoder.columns[0].categories == ["b", "c", "a"]
    given = [parts(encoder, value) for value in ("b", "a", "d", "never seen", None)]
    assert given == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_a_missing_name_has_a_number_of_its_own_where_training_has_such(workspace):
    encoder = learn(TRAINS, columns=["line", "platform"])
    given = [encoder.encode({"line": line, "platform": 4})[:5].tolist() for line in ("S1", "S9", None, "")]
    assert given == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]


def test_a_word_that_means_missing_among_numbers_is_a_name_among_names():
    encoder = Encoder.learn(column("country", ["NA", "NA", "DE"]), Options())
    assert encoder.columns[0].categories == ["NA", "DE"]


def test_truth_values_and_codes_are_names():
    encoder = Encoder.learn(column("open", [True, False, True]), Options())
    assert encoder.columns[0].categories == ["True", "False"]
    codes = Encoder.learn(column("code", [7.0, 7.0, 12.0, None]), Options(categorical=["code"]))
    assert codes.columns[0].categories == ["7", "12"]
    assert parts(codes, 12) == parts(codes, "12") == [0, 1, 0, 0]


def test_a_column_of_almost_only_different_names_is_said():
    encoder = Encoder.learn(
        column("name", [f"person {number}" for number in range(40)]), Options(categories=5)
    )
    assert encoder.warnings == [
        "column 'name' has so many values that 88% of the training examples count as 'other'"
    ]


# ── Dates ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("made", [str, date.fromisoformat, pd.Timestamp], ids=["text", "date", "timestamp"])
def test_a_date_is_year_month_weekday_and_days(made):
    encoder = Encoder.learn(column("day", [made("2024-01-31"), made("1969-12-31")]), Options())
    assert encoder.columns[0].kind == "dates"
    assert parts(encoder, made("2024-02-29")) == [2024, 2, 3, 19782]  # a Thursday
    assert parts(encoder, made("1969-12-31")) == [1969, 12, 2, -1]
    assert encoder.columns[0].describe(parts(encoder, made("2024-02-29"))) == "2024-02-29"


def test_the_hour_is_there_where_training_has_times():
    encoder = Encoder.learn(column("at", ["2024-01-31T10:30", "2024-02-01 18:00:00+02:00"]), Options())
    assert parts(encoder, "2024-02-01T18:15:00Z") == [2024, 2, 3, 19754, 18.25]
    assert encoder.columns[0].describe(parts(encoder, "2024-02-01T18:15:00Z")) == "2024-02-01 18:15"


def test_a_missing_date_is_the_median_with_an_indicator(workspace):
    encoder = learn(TRAINS, columns=["day", "platform"])
    assert encoder.encode({"day": None, "platform": 4})[1:].tolist() == [2024, 2, 3, 19782, 1]


@pytest.mark.parametrize("value", ["soon", "31.01.2024", 5, True])
def test_what_is_no_date_is_refused_in_a_column_of_dates(value):
    encoder = Encoder.learn(column("day", ["2024-01-31", "2024-02-01"]), Options())
    with pytest.raises(BadExampleError) as error:
        parts(encoder, value)
    assert str(error.value) == f"column 'day': found {value!r}, expected a date such as 2024-12-31"


# ── Rows ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_column_that_is_the_same_in_training_is_said_and_does_nothing_however_it_changes():
    raws = [{"same": 5, "kind": "a", "empty": None, "size": size} for size in (1.0, 2.0, 3.0)]
    encoder = Encoder.learn(raws, Options())
    same = "is the same in every training example: it is left out of account"
    assert encoder.warnings == [f"column {name!r} {same}" for name in ("same", "kind", "empty")]
    usual, odd = (
        normalised(encoder, encoder.encode({"same": same, "kind": kind, "empty": same, "size": 2.0}))
        for same, kind in ((5, "a"), (1e30, "b"))
    )
    assert np.array_equal(usual, odd)


def test_nothing_that_varies_is_refused():
    with pytest.raises(UserError, match="encode: every column is the same in all training examples"):
        Encoder.learn([{"a": 1, "b": "x"}] * 3, Options())


def test_columns_are_chosen_by_name(workspace):
    assert [column.name for column in learn(TRAINS, ignore=["day", "line"]).columns] == [
        "minutes late",
        "platform",
    ]
    chosen = learn(TRAINS, columns=["platform", "line"], ignore=["line"])
    assert [column.name for column in chosen.columns] == ["platform"]
    for key in ("columns", "ignore", "categorical"):
        with pytest.raises(UserError, match=rf"^encode\.{key}: no column 'lines', only .*mean 'line'\?$"):
            learn(TRAINS, **{key: ["lines"]})
    with pytest.raises(UserError, match=r"^encode: no column is left as input; the data has minutes late,"):
        learn(TRAINS, columns=[])


def test_a_row_without_a_column_lists_those_there(workspace):
    encoder = learn(TRAINS)
    row = {"minute late": 1, "line": "S1", "platform": 4, "day": "2024-01-31"}
    with pytest.raises(BadExampleError) as error:
        encoder.encode(row)
    assert str(error.value) == (
        "no column 'minutes late', only minute late, line, platform, day; did you mean 'minute late'?"
    )
    with pytest.raises(BadExampleError, match="no value in any column that is used"):
        encoder.encode(dict.fromkeys(["minutes late", "line", "platform", "day"]))
    for raw in (None, b"1,2", [1, 2]):
        with pytest.raises(BadExampleError, match="expected a row"):
            encoder.encode(raw)


def test_a_column_of_lists_is_named():
    with pytest.raises(UserError, match=r"encode\.ignore: expected column 'tags' here, which holds \['a'\]"):
        Encoder.learn(column("tags", [["a"], ["b"]]), Options())
    assert Encoder.learn(column("tags", [["a"], ["b"]]), Options(ignore=["tags"])).shape == (1,)


def test_rows_that_will_be_refused_change_no_statistics():
    good = column("size", [*range(1, 31)])
    bad: list[dict[str, Any]] = [
        {"size": "x", "number": 3},
        {"size": float("inf"), "number": 3},
        {"size": None, "number": None},
    ]
    first, second = (Encoder.learn(raws, Options()) for raws in (good, good + bad[:2]))
    assert (first.mean, first.scale) == (second.mean, second.scale)
    assert Encoder.learn(good + bad, Options()).columns[0].missing


def test_the_encoder_comes_back_from_json(workspace):
    encoder = learn(TRAINS, categorical=["platform"], categories=2, missing=["-", -999])
    encoder.save(Path())
    again = Encoder.load(Path())
    assert (again.layers, again.shape, again.options) == (encoder.layers, encoder.shape, encoder.options)
    strange = {"minutes late": -999, "line": "S9", "platform": None, "day": "-"}
    for raw in [*rows(TRAINS), strange]:
        assert np.array_equal(encoder.encode(raw), again.encode(raw))
    json.loads(Path("encoder.json").read_text())


def test_threads_encode_as_one_does(cancer):
    encoder = Encoder.learn(cancer, Options(categorical=["mean texture"]))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(encoder.encode, cancer * 5))
    assert np.array_equal(together, [encoder.encode(raw) for raw in cancer * 5])


def test_people_read_values_in_their_unit(workspace):
    encoder = learn(TRAINS, categories=1)
    words = [encoder.describe(encoder.encode(raw)) for raw in rows(TRAINS)]
    assert words[0] == {"minutes late": "3.5", "line": "S1", "platform": "4", "day": "2024-01-31"}
    assert words[1] == {"minutes late": "—", "line": "other", "platform": "4", "day": "2024-02-29"}
    assert [words[2]["day"], words[3]["line"]] == ["—", "—"]


def test_of_many_columns_the_first_are_shown_and_the_others_counted(cancer):
    encoder = Encoder.learn(cancer, Options())
    words = encoder.describe(encoder.encode(cancer[0]))
    assert list(words) == [*list(cancer[0])[:12], "…"]
    assert (words["mean radius"], words["mean area"], words["…"]) == ("17.99", "1001", "18 more")
    axes = Figure(figsize=tabular.CELL).subplots()
    encoder.draw(axes, encoder.encode(cancer[0]))
    assert [text.get_text() for text in axes.texts[:2]] == ["mean radius", "17.99"]
