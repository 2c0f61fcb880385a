"""`prepare`, end to end: what stands in build/prepared, and that only the content of the data decides it."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import prepared
from src.prepared import Split
from src.tasks import image
from src.train import prepare

SPLITS = ("train", "validation", "test")


@pytest.fixture
def photos(workspace, write_photos, write_params) -> Path:
    """Class folders of 36 photographs, and a params.yaml that says so."""
    write_params()
    return write_photos(workspace / "photos")


def summary() -> dict:
    return json.loads((prepared.FOLDER / "data.json").read_text())


def fingerprints() -> dict[str, str]:
    """The hash of every file that was prepared."""
    files = sorted(path for path in prepared.FOLDER.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_arrays_and_table_stand_in_the_same_order(photos):
    prepare.main()
    seen = []
    for name in SPLITS:
        split = Split.open(name)
        assert (split.inputs.shape, split.inputs.dtype) == ((len(split), 16, 16, 3), np.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((len(split),), np.int32)
        encoder = image.Encoder.load(prepared.FOLDER)
        for row, (example, label) in enumerate(zip(split.table["id"], split.table["label"], strict=True)):
            assert np.array_equal(split.inputs[row], encoder.encode((photos / example).read_bytes()))
            assert summary()["names"][split.labels[row]] == label == example.split("/")[0]
        seen += split.table["id"].tolist()
    assert sorted(seen) == sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*"))


def test_arrays_stay_on_disk(photos):
    prepare.main()
    split = Split.open("train")
    assert isinstance(split.inputs, np.memmap)
    assert isinstance(split.labels, np.memmap)
    assert not split.inputs.flags.writeable


def test_data_json_says_what_was_found(photos):
    (photos / "README.md").write_text("about")
    shutil.copy(photos / "flower/000.png", photos / "flower/copy.png")
    prepare.main()
    found = summary()
    assert found["objective"] == "classification"
    assert found["names"] == ["flower", "portrait", "temple"]
    assert found["examples"] == {name: len(Split.open(name)) for name in SPLITS}
    assert sum(found["examples"].values()) == 37
    assert found["classes"]["flower"]["train"] == (Split.open("train").table["label"] == "flower").sum()
    assert (found["duplicates"], found["leaks"], found["contradictions"]) == (1, [], 0)
    assert (found["bad"], found["ignored"]) == ([], ["README.md"])
    assert len(found["hash"]) == 64


def test_the_same_data_gives_the_same_bytes_however_it_lies_on_disk(photos, write_params):
    prepare.main()
    first, found = fingerprints(), summary()
    # Written in another order, and read from an archive: the folder's order and its times are of no matter.
    shutil.make_archive("photos", "gztar", photos)
    shutil.move(photos, "old")
    for path in sorted(Path("old").glob("*/*"), reverse=True):
        (photos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, photos / path.parent.name / path.name)
    prepare.main()
    assert fingerprints() == first
    write_params(data={"path": "photos.tar.gz"})
    prepare.main()
    assert fingerprints() == first
    assert summary() == found


def test_the_hash_follows_content_label_and_name(photos):
    def digest() -> str:
        prepare.main()
        return summary()["hash"]

    hashes = [digest()]
    picture = Image.open(photos / "flower/000.png")
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(photos / "flower/000.png")
    hashes.append(digest())
    (photos / "flower/001.jpg").rename(photos / "temple/1.jpg")
    hashes.append(digest())
    (photos / "temple/1.jpg").rename(photos / "temple/2.jpg")
    hashes.append(digest())
    assert len(set(hashes)) == 4


def test_unreadable_examples_are_skipped_when_that_is_asked_for(photos, write_params, capsys):
    (photos / "flower/001.jpg").write_bytes((photos / "flower/001.jpg").read_bytes()[:300])
    (photos / "temple/text.png").write_text("not an image")
    write_params(data={"on_bad": "skip"})
    prepare.main()
    found = summary()
    assert sum(found["examples"].values()) == 35
    assert [row["id"] for row in found["bad"]] == ["flower/001.jpg", "temple/text.png"]
    assert all(row["reason"] for row in found["bad"])
    assert "skipped 2 unreadable examples" in capsys.readouterr().out


def test_a_class_of_which_nothing_is_left_is_a_warning(photos, write_params):
    (photos / "rare").mkdir()
    (photos / "rare/text.png").write_text("not an image")
    write_params(data={"on_bad": "skip"})
    prepare.main()
    assert summary()["names"] == ["flower", "portrait", "temple"]
    assert summary()["warnings"] == ["class 'rare' has no readable example"]


def test_a_sample_shrinks_the_training_split_alone(photos, write_params):
    prepare.main()
    whole = summary()["examples"]
    write_params(data={"sample": 0.5})
    prepare.main()
    half = summary()["examples"]
    assert half["validation"] == whole["validation"]
    assert half["test"] == whole["test"]
    assert whole["train"] / 2 <= half["train"] <= whole["train"] / 2 + 3


def test_adding_photographs_moves_none(photos, write_photos):
    def where() -> dict[str, str]:
        prepare.main()
        return {example: name for name in SPLITS for example in Split.open(name).table["id"]}

    before = where()
    write_photos(photos, 12, first=12)
    after = where()
    assert len(after) == 72
    assert {example: after[example] for example in before} == before


def test_declared_splits_and_other_columns_arrive(workspace, write_photos, write_params):
    write_photos(workspace / "photos")
    paths = sorted(path.as_posix() for path in Path("photos").glob("*/*"))
    rows = pd.DataFrame({"path": paths, "label": [path.split("/")[1] for path in paths]})
    rows["split"] = ["train", "train", "val", "test"] * 9
    rows["camera"] = ["old", "new"] * 18
    rows.to_csv("list.csv", index=False)
    write_params(data={"path": "list.csv"})
    prepare.main()
    assert summary()["examples"] == {"train": 18, "validation": 9, "test": 9}
    table = Split.open("test").table
    assert table["camera"].tolist() == ["new"] * 9
    assert "input" not in table


def test_what_was_prepared_before_is_replaced_whole(photos, write_params):
    prepare.main()
    (prepared.FOLDER / "stale.npy").write_bytes(b"")
    write_params(encode={"size": [8, 8], "channels": 1})
    prepare.main()
    assert Split.open("test").inputs.shape[1:] == (8, 8, 1)
    assert sorted(path.name for path in prepared.FOLDER.iterdir()) == [
        "data.json",
        "encoder.json",
        "test",
        "train",
        "validation",
    ]
    assert [path.name for path in Path("build").iterdir()] == ["prepared"]
