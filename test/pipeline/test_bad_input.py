"""Bad input: exit code 1, one message that names the file or the key, and nothing half-written."""

import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from src.evaluate import score
from src.files import read_json, sha256
from src.train import fit, prepare


@pytest.fixture
def photos(workspace, write_photos, write_params) -> Path:
    """Class folders of 36 photographs, and a params.yaml that says so."""
    write_params()
    return write_photos(workspace / "photos")


def written() -> list[str]:
    """What stages have written, temporary files included; a lock is nothing that anyone reads."""
    files = [path for folder in ("build", "src") for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if path != fit.LOCK)


def refused(fails, main, *words: str) -> str:
    """Runs a command that must fail and say these words, and write nothing."""
    before = written()
    code, message = fails(main)
    assert code == 1
    assert message.startswith("error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert written() == before
    assert not list(Path().glob("build/.*"))
    return message


# ── Data ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_dataset(workspace, write_params, fails):
    write_params(data={"path": "datasets/nowhere"})
    message = refused(fails, prepare.main, "data.path: datasets/nowhere does not exist; expected a folder")
    assert len(message.splitlines()) == 1


def test_an_empty_dataset(workspace, write_params, fails):
    (workspace / "photos").mkdir()
    write_params()
    refused(fails, prepare.main, "data.path: photos has 0 files and none is <class>/<file>")


def test_one_class(photos, fails):
    shutil.rmtree(photos / "flower")
    shutil.rmtree(photos / "temple")
    refused(fails, prepare.main, "photos: found one class, 'portrait'; expected at least two")


def test_a_class_of_one_image(photos, photograph, fails):
    (photos / "rare").mkdir()
    photograph("temple", 99).save(photos / "rare/0.png")
    refused(fails, prepare.main, "photos: class 'rare' has one example; expected at least two")


def test_every_unreadable_image_is_listed_with_its_reason(photos, fails):
    (photos / "flower/text.png").write_text("not an image")
    (photos / "flower/empty.png").write_bytes(b"")
    whole = (photos / "portrait/001.jpg").read_bytes()
    (photos / "portrait/001.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    Image.new("1", (9000, 9000)).save(photos / "temple/bomb.png")
    (photos / "temple/gone.png").symlink_to("nowhere.png")
    message = refused(fails, prepare.main, "photos: 5 of 40 examples cannot be read:")
    lines = message.splitlines()
    assert lines[1:5] == [
        "  flower/empty.png: empty",
        "  flower/text.png: not an image in a known format",
        "  portrait/001.jpg: damaged image: " + lines[3].partition("damaged image: ")[2],
        "  temple/bomb.png: 9000 × 9000 pixels, expected at most 80,000,000 in all",
    ]
    assert "truncated" in lines[3]
    assert lines[5] == "  temple/gone.png: No such file or directory"
    assert lines[6] == "  Mend or remove them, or set data.on_bad: skip."


def test_nothing_but_unreadable_images(photos, write_params, fails):
    for path in photos.glob("*/*"):
        path.write_bytes(b"not an image")
    write_params(data={"on_bad": "skip"})
    refused(fails, prepare.main, "photos: none of the 36 examples can be read")


def test_a_zip_that_points_outside(photos, write_params, fails):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for path in photos.glob("*/*"):
            archive.write(path, path.relative_to(photos))
        archive.writestr("../escaped.png", b"")
    write_params(data={"path": "photos.zip"})
    refused(fails, prepare.main, "photos.zip: member '../escaped.png' points outside the archive; refused")


def test_a_test_split_with_a_class_that_is_never_trained(workspace, write_photos, write_params, fails):
    write_photos(workspace / "photos/train", 6, kinds=("flower", "temple"))
    write_photos(workspace / "photos/test", 3, first=6)
    write_params()
    message = refused(fails, prepare.main, "photos: class 'portrait' has 0 validation and 3 test examples")
    assert "none to train on" in message


def test_the_same_photograph_in_training_and_test(workspace, write_photos, write_params, fails):
    write_photos(workspace / "photos/train", 6)
    write_photos(workspace / "photos/test", 3, first=6)
    Path("photos/test/flower/copy.bmp").write_bytes(Path("photos/train/flower/003.bmp").read_bytes())
    write_params()
    message = refused(fails, prepare.main, "photos: 1 examples stand in two splits:")
    assert "  test test/flower/copy.bmp" in message
    assert "flower/003.bmp" in message


def test_what_was_prepared_before_stays_when_new_data_is_bad(photos, fails):
    prepare.main()
    before = {path: sha256(path) for path in written()}
    (photos / "flower/text.png").write_text("not an image")
    refused(fails, prepare.main, "cannot be read")
    assert {path: sha256(path) for path in written()} == before


# ── Parameters ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"architecture": "resnet"},
            "params.yaml: architecture: src/architectures: there is no 'resnet', expected",
        ),
        ({"fit": {"optimizer": {"learning_rate": -1}}}, "params.yaml: fit.optimizer.learning_rate: found -1"),
        ({"fit": {"epochs": "ten"}}, "params.yaml: fit.epochs: found 'ten', expected a valid integer"),
    ],
    ids=["unknown architecture", "negative learning rate", "epochs: ten"],
)
@pytest.mark.parametrize("main", [prepare.main, fit.main, score.main], ids=["prepare", "fit", "score"])
def test_wrong_parameters_stop_every_stage(photos, write_params, fails, main, changes, sentence):
    write_params(**changes)
    assert len(refused(fails, main, sentence).splitlines()) == 1


def test_yaml_that_does_not_parse_ends_the_process_with_one_sentence(workspace, root):
    Path("params.yaml").write_text("fit: [1, 2\n")
    command = [sys.executable, "-m", "src.train.prepare"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(root), "PATH": ""}
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: params.yaml: expected YAML, found what cannot be parsed: ")
    assert len(result.stderr.splitlines()) == 1
    assert written() == []


# ── Training and scoring ───────────────────────────────────────────────────────────────────────────────


def test_training_before_preparing(photos, fails):
    refused(fails, fit.main, "build/prepared/train/inputs.npy: not found; run `python -m src.train.prepare`")


def test_scoring_before_training(photos, fails):
    prepare.main()
    refused(fails, score.main, "src/models/model.keras: not found; run `dvc repro`, which makes it")


def test_too_many_blocks_for_the_images(photos, write_params, fails):
    write_params(model={"filters": [4] * 5})
    prepare.main()
    refused(fails, fit.main, "model.filters: found 5 blocks", "for inputs of 16 × 16 × 3")


def test_an_unknown_optimizer(photos, write_params, fails):
    write_params(fit={"optimizer": {"name": "adamm"}})
    prepare.main()
    refused(fails, fit.main, "params.yaml: fit.optimizer: Keras has no 'adamm'", "did you mean 'adam'?")


def test_a_full_disk_while_saving_the_model(photos, write_params, fails):
    write_params(fit={"epochs": 1})
    prepare.main()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        code, message = fails(fit.main)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert message == "error: src/models/model.keras: cannot be written: File too large"
    # The history, which is written after each epoch, is whole; and nothing else is there.
    assert list(Path("src").rglob("*")) == [Path("src/models"), Path("src/models/history.json")]
    assert [epoch["epoch"] for epoch in read_json("src/models/history.json")] == [1]


def test_a_full_disk_while_preparing(photos, fails):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        refused(fails, prepare.main, "build/prepared: cannot be written: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
