"""Predicting with src/models as sluice.pyz does, beside Keras on the same model: one run, in turn.

python -m benchmark.predict
"""

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from src import engine, golden
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.publish import bundle, pyz
from src.scoring import latencies

MODELS = Path("src/models")
FILES = ("model.keras", "model.onnx", "inference.json", "golden.json", "metrics.json")
BATCH = 256
# What one does without Sluice: import, load, decode, predict.
KERAS = """
import sys, numpy as np, keras
from PIL import Image
model = keras.models.load_model(sys.argv[1])
image = np.asarray(Image.open(sys.argv[2]).convert("L")).reshape(1, 28, 28, 1)
print(model.predict(image, verbose=0).argmax())
"""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=5, help="of each process (default: 5)")
    parser.add_argument(
        "--images", type=int, default=100_000, help="to predict in a folder (default: 100,000)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        archive = build(folder)
        images = [golden.unpack(each["input"]) for each in Source(archive).json(golden.NAME)["examples"]]
        shoe = folder / "shoe.png"
        shoe.write_bytes(images[0])
        print("| | sluice.pyz | Keras | faster |\n|---|---|---|---|", flush=True)
        for count in sorted(
            {1000, arguments.images}
        ):  # first: a child's peak memory begins with its parent's
            seconds, peak = predict_folder(archive, images, folder / str(count), count)
            print(
                f"| {count:,} PNG files in a folder | {seconds:.1f} s, {peak:.0f} MB at most | | |",
                flush=True,
            )
        compare_starts(archive, shoe, arguments.starts)
        compare_calls(archive, images)
        size = sum((MODELS / name).stat().st_size for name in FILES)
        print(f"| size of the file (of the model's files) | {show_size(archive)} | {size / 1e6:.2f} MB | |")
        light, heavy = (
            installed(name) for name in (("numpy", "onnxruntime", "pillow"), ("keras", "tensorflow"))
        )
        print(f"| packages to install | {light / 1e6:,.0f} MB | {heavy / 1e6:,.0f} MB | |")


def build(folder: Path) -> Path:
    """Makes the archive of src/models, judged or not."""
    for name in FILES:
        (folder / name).write_bytes((MODELS / name).read_bytes())
    bundle.write_sums(folder)
    archive = folder / pyz.ARCHIVE
    with open(archive, "wb") as file:
        pyz.write(pyz.collect(folder), file)
    return archive


def compare_starts(archive: Path, shoe: Path, count: int) -> None:
    """Prints how long processes take from their start to their first prediction, the medians.

    Their processor time, too: it is nearly the same when the machine has other things to do.
    """
    commands = {
        "pyz": [sys.executable, str(archive), str(shoe)],
        "keras": [sys.executable, "-c", KERAS, str(MODELS / "model.keras"), str(shoe)],
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(count + 1):  # the first time, files come from the disk
        for name, command in commands.items():
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            if status:
                sys.exit(f"failed: {' '.join(command)}")
            if number:
                busy = usage.ru_utime + usage.ru_stime
                seconds[name].append((time.perf_counter() - started, busy))
    for column, what in enumerate(("cold start to the first prediction", "the same, processor time")):
        own, other = (statistics.median(pair[column] for pair in seconds[name]) for name in commands)
        print(f"| {what} | {own:.2f} s | {other:.2f} s | {other / own:.1f} × |", flush=True)


def compare_calls(archive: Path, images: list[bytes]) -> None:
    """Prints how long single images and batches take, the medians."""
    predictor = Predictor(Source(archive))
    one = np.stack([predictor.encode(images[0])])
    many = np.stack([predictor.encode(images[number % len(images)]) for number in range(BATCH)])
    warnings.filterwarnings("ignore", "The structure of `inputs`")  # a list of one, to Keras
    engine.start(deterministic=False)  # XLA refuses to be
    model = engine.read(MODELS / "model.keras")
    single: list[tuple[str, Callable[[], object]]] = [
        ("one image, `model.predict`", lambda: model.predict(one, verbose=0)),
        ("one image, `model(x)`", lambda: model(one, training=False).numpy()),
    ]
    for name, call in single:
        own, other = np.median(latencies(lambda: predictor.run(one), call, rounds=100), axis=0)
        print(f"| {name} | {own * 1e3:.2f} ms | {other * 1e3:.2f} ms | {other / own:.0f} × |", flush=True)
    own = np.median(latencies(lambda: predictor.predict(images[:1]), rounds=100))
    print(f"| one PNG file's bytes, decoded too | {own * 1e3:.2f} ms | | |")
    model.compile(jit_compile=True)
    own, other = np.median(
        latencies(lambda: predictor.run(many), lambda: model.predict_on_batch(many), rounds=50), axis=0
    )
    print(
        f"| images a second at batch {BATCH}, Keras with XLA | {BATCH / own:,.0f} | {BATCH / other:,.0f} | "
        f"{other / own:.1f} × |"
    )


def predict_folder(archive: Path, images: list[bytes], folder: Path, count: int) -> tuple[float, float]:
    """Predicts many images in a process of its own; returns its seconds and its peak memory in MB."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06}.png"
        if number < len(images):
            path.write_bytes(images[number])
        else:
            os.link(folder / f"{number % len(images):06}.png", path)
    started = time.perf_counter()
    command = [sys.executable, str(archive), str(folder), "--csv", "--batch-size", "256"]
    with open(folder.with_suffix(".csv"), "w") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    with open(folder.with_suffix(".csv")) as written:
        lines = sum(1 for _ in written)
    if status or lines != count + 1:
        sys.exit("predicting failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def show_size(path: Path) -> str:
    """Returns a file's size."""
    return f"{path.stat().st_size / 1e6:.2f} MB"


def installed(names: tuple[str, ...]) -> int:
    """Returns how many bytes packages take, with all that they require."""
    waiting, size = [*names], 0
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        size += sum(file.size or 0 for file in package.files or [])
        for requirement in package.requires or []:
            if "extra ==" not in requirement:
                waiting += re.findall(r"^[\w.-]+", requirement)
    return size


if __name__ == "__main__":
    main()
