"""The entry of a text job, and what an application needs besides: nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from tokenizers import Tokenizer

from src import engine
from src.evaluate import report, score
from src.s3 import entries
from src.s3.download import download
from src.train import fit, prepare


@pytest.mark.slow
def test_a_text_job_has_exactly_what_applications_read_and_its_files_are_all_that_they_need(
    bucket, root, workspace, write_params
):
    table = pd.read_parquet(root / "datasets/reviews/snippets.parquet").head(200)
    table[["text", "label"]].to_csv("reviews.csv", index=False)
    sizes = {"units": 4, "layers": 2, "bidirectional": True, "dropout": 0.1, "embedding": {"dimension": 8}}
    write_params(task="text", architecture="rnn", data={"path": "reviews.csv"}, fit={"epochs": 1})
    settings = YAML(typ="safe").load(Path("params.yaml")) | {"encode": {"length": 12}, "model": sizes}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    for stage in (prepare, fit, score, report):
        stage.main()

    entry = entries.publish(bucket, "job-9", Path("src/models"), "2026-01-02T03:04:05+00:00")
    where = entries.files(entry)
    for name in ("tokenizer_path", "model_path"):
        download(bucket, entry[name], workspace / "application" / Path(entry[name]).name)
    tokenizer = Tokenizer.from_file(str(workspace / "application/tokenizer.json"))
    accuracy = json.loads(Path("src/models/metrics.json").read_text())["accuracy"]
    assert entry == {
        "task_type": "text",
        "accuracy": accuracy,
        "model_parameters": {
            "model_name": "rnn",
            "input_dim": len(tokenizer.get_vocab()),
            "embedding_dim": 8,
            "hidden_dim": 4,
            "output_dim": 2,
            "number_of_layers": 2,
            "bidirectional": True,
            "dropout": 0.1,
            "pad_index": 0,
        },
        "plot_path": f"{where}report/curves.png",
        "model_path": f"{where}model.keras",
        "tokenizer_path": f"{where}tokenizer.json",
        "classes": sorted(table["label"].unique()),
        "created": "2026-01-02T03:04:05+00:00",
    }

    model = engine.load(workspace / "application/model.keras")
    first = pd.read_parquet("src/models/predictions.parquet").iloc[0]
    text = table["text"].iloc[int(first["id"].split(":")[1])]
    tokens = np.array([tokenizer.encode(text).ids], np.int32)
    expected = [first[f"probability of {name}"] for name in entry["classes"]]
    assert model.predict(tokens, verbose=0)[0] == pytest.approx(expected, abs=1e-5)
