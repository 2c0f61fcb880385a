"""A dataset is a table, however it lies on disk: class folders, Parquet, CSV."""

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from src import dataset
from src.dataset import Slice, content
from src.errors import BadExampleError, UserError
from src.params import Data
from src.tasks import image


@pytest.fixture
def read(workspace):
    """Reads `path` as images."""

    def run(path, **data) -> pd.DataFrame:
        spool = workspace / "spool"
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir()
        return image.read(Data(path=str(path), **data), spool)

    return run


@pytest.fixture
def rows(fashion) -> pd.DataFrame:
    """A table of real images and their classes, in the Hugging Face convention."""
    return pd.DataFrame(fashion)


# ── Class folders ──────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_class_folders_is_read(read, write_photos):
    table = read(write_photos(Path("photos"), 4))
    assert Counter(table["label"]) == {"flower": 4, "portrait": 4, "temple": 4}
    assert "split" not in table
    assert table["id"].tolist()[:2] == ["flower/000.png", "flower/001.jpg"]
    assert content(table["input"][0]) == Path("photos/flower/000.png").read_bytes()


def test_split_folders_declare_the_split_by_any_usual_name(read, write_photos):
    for name in ("train", "val", "test"):
        write_photos(Path("photos") / name, 2)
    table = read("photos")
    assert Counter(table["split"]) == {"train": 6, "validation": 6, "test": 6}
    assert set(table["label"]) == {"flower", "portrait", "temple"}


def test_classes_that_are_called_like_a_split_stay_classes_beside_others(read, write_photos):
    write_photos(Path("photos"), 2)
    Path("photos/temple").rename("photos/test")
    table = read("photos")
    assert set(table["label"]) == {"flower", "portrait", "test"}
    assert "split" not in table


def test_files_that_are_no_examples_are_set_aside_and_listed(read, write_photos):
    folder = write_photos(Path("photos"), 2)
    (folder / "README.md").write_text("about")
    (folder / "flower/notes.txt").write_text("notes")
    (folder / "flower/.DS_Store").write_text("hidden")
    (folder / "empty class").mkdir()
    (folder / ".thumbnails").mkdir()
    shutil.copy(folder / "flower/000.png", folder / ".thumbnails/000.png")
    table = read(folder)
    assert len(table) == 6
    assert sorted(table.attrs["ignored"]) == ["README.md", "empty class/", "flower/notes.txt"]


def test_endings_in_capitals_and_deeper_folders_count(read, write_photos):
    folder = write_photos(Path("photos"), 2)
    (folder / "flower/000.png").rename(folder / "flower/000.PNG")
    (folder / "temple/roll 1").mkdir()
    (folder / "temple/000.png").rename(folder / "temple/roll 1/000.png")
    table = read(folder)
    assert len(table) == 6
    assert table.loc[table["id"] == "temple/roll 1/000.png", "label"].item() == "temple"


def test_a_folder_without_images_says_which_layout_is_expected(read, workspace):
    (workspace / "photos").mkdir()
    (workspace / "photos/a.txt").write_text("text")
    with pytest.raises(UserError, match=r"data\.path: photos has 1 files and none is <class>/<file>"):
        read("photos")


def test_a_missing_dataset_and_a_file_of_another_kind_are_named(read, workspace):
    with pytest.raises(UserError, match=r"data\.path: nowhere does not exist; expected a folder, an archive"):
        read("nowhere")
    Path("notes.txt").write_text("text")
    with pytest.raises(UserError, match=r"data\.path: found notes\.txt, expected a folder, \.csv"):
        read("notes.txt")


def test_a_file_that_vanishes_is_a_bad_example():
    with pytest.raises(BadExampleError, match="No such file"):
        Slice("nowhere.png").read()


# ── Parquet ────────────────────────────────────────────────────────────────────────────────────────────


def test_parquet_of_hugging_face_structs_is_read_from_disk_on_demand(read, rows, fashion):
    rows.to_parquet("some.parquet")
    table = read("some.parquet")
    assert all(isinstance(cell, Slice) for cell in table["input"])
    assert [content(cell) for cell in table["input"]] == [row["image"]["bytes"] for row in fashion]
    assert table["label"].tolist() == rows["label"].tolist()
    assert "split" not in table  # one file declares none, whatever its name


def test_parquet_of_plain_bytes_is_read(read, rows):
    plain = rows.assign(image=[cell["bytes"] for cell in rows["image"]])
    plain.to_parquet("plain.parquet")
    assert content(read("plain.parquet")["input"][3]) == plain["image"][3]


def test_parquet_of_paths_is_relative_to_the_table(read, rows, workspace):
    (workspace / "data/images").mkdir(parents=True)
    for number, cell in enumerate(rows["image"]):
        (workspace / f"data/images/{number}.png").write_bytes(cell["bytes"])
    paths = [f"images/{number}.png" for number in range(len(rows))]
    rows.assign(image=paths).to_parquet("data/text.parquet")
    rows.assign(image=[{"bytes": None, "path": path} for path in paths]).to_parquet("data/struct.parquet")
    for name in ("text", "struct"):
        assert content(read(f"data/{name}.parquet")["input"][7]) == rows["image"][7]["bytes"]


def test_files_called_like_splits_declare_them(read, rows, workspace):
    (workspace / "data").mkdir()
    rows[:30].to_parquet("data/train-00000-of-00002.parquet")
    rows[30:40].to_parquet("data/train-00001-of-00002.parquet")
    rows[40:].to_parquet("data/validation.parquet")
    table = read("data")
    assert Counter(table["split"]) == {"train": 40, "validation": 20}
    assert table["id"].is_unique


def test_other_columns_are_kept_and_other_media_are_not(read, rows):
    rows.assign(mask=rows["image"], weight=1.5).to_parquet("more.parquet")
    table = read("more.parquet")
    assert set(table.columns) == {"id", "input", "label", "weight"}


def test_damaged_parquet_is_one_sentence_with_the_file(read, rows):
    rows.to_parquet("cut.parquet")
    path = Path("cut.parquet")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"^cut\.parquet: expected parquet"):
        read("cut.parquet")


# ── CSV and columns ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def listed(write_photos, workspace) -> pd.DataFrame:
    """A CSV's content: path, class, and a split for each of 12 photographs."""
    write_photos(workspace / "photos", 4)
    paths = sorted(path.relative_to(workspace).as_posix() for path in workspace.glob("photos/*/*"))
    labels = [path.split("/")[1] for path in paths]
    return pd.DataFrame(
        {"file_name": paths, "class": labels, "split": ["train", "dev", "test", "training"] * 3}
    )


def test_csv_of_paths_is_read_with_its_split_column(read, listed):
    listed.to_csv("list.csv", index=False)
    table = read("list.csv")
    assert content(table["input"][0]) == Path("photos/flower/000.png").read_bytes()
    assert Counter(table["split"]) == {"train": 6, "validation": 3, "test": 3}


def test_numbers_as_labels_and_labels_that_look_missing_stay_what_they_are(read, listed):
    listed.assign(**{"class": ["None", "NA", "null"] * 4}).to_csv("list.csv", index=False)
    assert set(read("list.csv")["label"]) == {"None", "NA", "null"}


def test_a_split_of_an_unknown_name_is_refused(read, listed):
    listed.assign(split="holdout").to_csv("list.csv", index=False)
    with pytest.raises(UserError, match="column 'split' holds 'holdout', expected one of train, validation"):
        read("list.csv")


def test_a_column_that_is_not_there_lists_those_that_are(read, listed):
    listed.to_csv("list.csv", index=False)
    with pytest.raises(UserError) as error:
        read("list.csv", label="klass")
    assert str(error.value) == (
        "data.label: list.csv has no column 'klass', only file_name, class, split; did you mean 'class'?"
    )


def test_columns_of_no_usual_name_ask_which_one_it_is(read, listed):
    listed.rename(columns={"file_name": "where"}).to_csv("list.csv", index=False)
    with pytest.raises(
        UserError, match=r"data\.input: list\.csv has the columns where, class, split and none"
    ):
        read("list.csv")
    assert len(read("list.csv", input="where")) == 12


def test_another_label_than_the_column_called_label_can_be_chosen(read, listed):
    listed.assign(label="unwanted").to_csv("list.csv", index=False)
    assert set(read("list.csv", label="class")["label"]) == {"flower", "portrait", "temple"}


def test_an_empty_or_wrongly_encoded_csv_is_one_sentence_with_the_file(read, workspace):
    for wrong in (b"", b"path,label\n\xff\xfe,a\n"):
        Path("list.csv").write_bytes(wrong)
        with pytest.raises(UserError, match=r"^list\.csv: expected csv in UTF-8, found: "):
            read("list.csv")


def test_every_usual_name_of_a_split_is_one_of_the_three():
    assert set(dataset.SPLIT_NAMES.values()) == set(dataset.SPLITS)
