"""A job file is a recipe with differences; what is wrong in it is said by its key."""

import json
from typing import Any

import pytest

from src.errors import UserError
from src.jobs import order, stages
from src.s3.bucket import Location

PLACE = Location("team", "jobs/a-1.json")
JOB: dict[str, Any] = {"id": "a-1", "task": "image", "dataset": "s3://team/data/photos.zip"}


def compose(**changes: Any) -> dict[str, Any]:
    found = order.parse(json.dumps(JOB | changes).encode(), PLACE)
    return order.compose(found, PLACE)[0]


def test_the_first_recipe_of_the_task_holds_where_the_job_says_nothing_else():
    content = compose(params={"fit": {"epochs": 3}, "data": {"sample": 50}})
    assert content["architecture"] == "cnn"
    assert content["data"] == {"path": "data/photos.zip", "sample": 50}
    assert content["fit"]["epochs"] == 3
    assert content["fit"]["batch_size"] == 128
    assert content["report"] == {"title": "a-1"}
    assert "gates" not in content


def test_another_architecture_has_its_own_defaults():
    content = compose(params={"architecture": "transfer", "model": {"backbone": "x.keras"}})
    assert content["model"] == {"backbone": "x.keras"}


def test_another_schedule_takes_no_argument_of_the_one_before():
    rate = {"name": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.5}
    content = compose(params={"fit": {"optimizer": {"learning_rate": rate}}})
    assert content["fit"]["optimizer"] == {"name": "adam", "learning_rate": rate}


@pytest.mark.parametrize(
    ("dataset", "place", "path"),
    [
        ("data/a.csv", "s3://team/data/a.csv", "data/a.csv"),
        ("s3://other/photos/", "s3://other/photos/", "data/photos"),
        ("s3://other/", "s3://other/", "data/dataset"),
        ("data/..", "s3://team/data/..", "data/dataset"),
        ("data/.ä b.zip", "s3://team/data/.ä b.zip", "data/ä_b.zip"),
    ],
)
def test_a_dataset_has_a_place_in_the_work_folder_whatever_its_name(dataset, place, path):
    found = order.source(order.Order(**JOB | {"dataset": dataset}), PLACE)
    assert (str(found), str(order.target(found))) == (place, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datset": "x"}, "datset: unknown key; did you mean 'dataset'?"),
        ({"id": "../a"}, r"id: found '../a', expected"),
        ({"id": "a-2"}, "id: found 'a-2', expected 'a-1', as the file is called"),
        ({"task": "imge"}, "task: found 'imge', expected one of .*; did you mean 'image'"),
        ({"recipe": "fashon"}, "recipe: found 'fashon', expected one of .*; did you mean 'fashion'"),
        ({"recipe": "reviews"}, "task: found 'image', expected text, as recipes/reviews.yaml has it"),
        ({"sha256": "12"}, "sha256: found '12', expected"),
        ({"dataset": "photos/", "sha256": "a" * 64}, "sha256: expected where the dataset is one file"),
        ({"dataset": "https://example.org/x.zip"}, "dataset: found 'https.*', expected s3://bucket/key"),
        ({"params": {"architecture": "cn"}}, "params: architecture: .* no 'cn', .* did you mean 'cnn'"),
        ({"params": {"fit": {"epochs": 0}}}, "params: fit.epochs: found 0, expected"),
        ({"params": {"task": "text"}}, "params.task: expected nothing: the job's own 'task' says it"),
        ({"params": {"data": {"path": "/etc"}}}, r"params.data.path: expected nothing: .*'dataset' says it"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(changes, said):
    with pytest.raises(UserError, match=rf"^s3://team/jobs/a-1.json: {said}"):
        compose(**changes)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_said(content):
    with pytest.raises(UserError, match="expected JSON, found something else"):
        order.parse(content, PLACE)


def test_json_that_is_no_object_is_said():
    with pytest.raises(UserError, match=r"expected an object such as \{\"id\": …\}, found list"):
        order.parse(b"[]", PLACE)


def test_the_stages_are_those_of_dvc_yaml():
    assert list(stages.commands()) == ["prepare", "fit", "score", "export", "report"]
    assert stages.commands()["fit"] == ["src.train.fit"]
