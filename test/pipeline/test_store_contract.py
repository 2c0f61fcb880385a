"""What holds for every store: a version is a whole bundle, for good."""

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gitlab_stand_in import TOKEN  # type: ignore[import-not-found]

from src import stores
from src.errors import UserError
from src.plugin import names, pick

# How each store of the environment below is reached.
WHERE = {"folder": "store/models", "gitlab": "", "s3": "s3://team/shop"}


@pytest.fixture(params=sorted(WHERE))
def store(request, published, tmp_path) -> stores.Store:
    """An empty store."""
    name = request.param
    environ = {}
    if name == "s3":
        request.getfixturevalue("bucket")
    if name == "gitlab":
        server = request.getfixturevalue("server")
        environ = {"CI_API_V4_URL": f"{server.url}/api/v4", "CI_PROJECT_ID": "42", "GITLAB_TOKEN": TOKEN}
        environ["CI_PROJECT_NAME"] = "shoes"
    (found,) = stores.choose([f"{name}:{WHERE[name]}"], environ)
    return found


def whole(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def get(store: stores.Store, version: str, folder: Path) -> dict[str, bytes]:
    stores.get(store.module, version, folder, store.options)
    return whole(folder)


def test_every_store_is_tried_here():
    assert names("stores") == sorted(WHERE)


def test_what_is_put_is_there_whole_and_stays_when_the_same_model_comes_again(
    store, bundled, retrain, tmp_path
):
    module, options = store.module, store.options
    assert module.versions(options) == []
    first = whole(bundled)
    place = module.put(bundled, "1.0.0", options)
    assert isinstance(place, str)
    assert module.versions(options) == ["1.0.0"]
    assert get(store, "1.0.0", tmp_path / "fetched") == first

    time.sleep(1.1)  # the time of bundling is in whole seconds
    again = retrain("the weights")
    assert whole(again) != first
    assert module.put(again, "1.0.0", options) == place
    assert module.versions(options) == ["1.0.0"]
    assert get(store, "1.0.0", tmp_path / "fetched") == first
    assert stores.holds(module, "1.0.0", options, again)


def test_another_model_is_refused_under_that_version_and_taken_under_the_next(
    store, bundled, retrain, tmp_path
):
    module, options = store.module, store.options
    module.put(bundled, "1.0.0", options)
    other = retrain("other weights")
    with pytest.raises(UserError, match="is another model already; expected a new version"):
        module.put(other, "1.0.0", options)
    module.put(other, "1.0.1-rc.1", options)
    assert sorted(module.versions(options)) == ["1.0.0", "1.0.1-rc.1"]
    assert get(store, "1.0.0", tmp_path / "old")["model.keras"] == b"the weights"
    assert get(store, "1.0.1-rc.1", tmp_path / "new")["model.keras"] == b"other weights"


def test_what_was_never_put_is_an_error_and_nothing_is_left(store, bundled, tmp_path):
    store.module.put(bundled, "1.0.0", store.options)
    with pytest.raises(UserError, match=r"2\.0\.0"):
        stores.get(store.module, "2.0.0", tmp_path / "none", store.options)
    with pytest.raises(UserError, match=r"nothing\.txt"):
        store.module.download("1.0.0", "nothing.txt", tmp_path / "nothing.txt", store.options)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("no", ".no"))]


def test_options_are_none_where_nothing_is_said():
    for name in names("stores"):
        module: ModuleType = pick("stores", name)
        options: Any = module.options(None, {})
        assert options is None
