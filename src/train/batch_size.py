"""Finds the largest batch, a power of two, that a training step has memory for: `fit.batch_size: auto`.

Steps are measured in a process of their own, so that running out of memory ends nothing else: the memory of
the machine, of its container, or of the GPU. An epoch keeps ten steps at least, whatever memory there is.

in:   params.yaml (architecture, model, fit), build/prepared/

python -m src.train.batch_size
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from src import command, engine, params, prepared
from src.errors import UserError
from src.files import read_json
from src.plugin import pick
from src.train import compiling

LEAST_STEPS = 10  # of an epoch
USED = 0.8  # share of the memory that is free now
CGROUP = Path("/sys/fs/cgroup")


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    for size, peak in _try_sizes():
        print(json.dumps({"size": size, "peak": peak}), flush=True)


def measure() -> int:
    """Measures in a child process, and says what was found.

    Returns:
        The batch size.

    Raises:
        UserError: If not even one example has room, or the child fails otherwise.
    """
    arguments = [sys.executable, "-m", "src.train.batch_size"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in child.stdout.splitlines() if line.startswith('{"size"')]
    if not found:
        last = (child.stderr.strip().splitlines() or [f"ended with code {child.returncode}"])[-1]
        raise UserError(f"params.yaml: fit.batch_size: auto: no step could be measured: {last}")
    size, peak = found[-1]["size"], found[-1]["peak"]
    print(f"batch size: {size:,}, the most that fits: a step takes {peak / 2**20:,.0f} MiB at its peak")
    return int(size)


def _try_sizes() -> Iterator[tuple[int, int]]:
    """Yields each size that fits, and its peak memory in bytes, until the next one would not."""
    settings = params.load()
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    train = prepared.Split.open("train")
    with suppress(OSError):  # where Linux must end a process, it is this one
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = free_memory() * USED
    engine.start(settings.fit.seed)
    with engine.place(settings.fit.device).scope():
        model = compiling.build(settings, data)
        compiling.compile_model(model, objective, settings.fit, 1)
        size, before = 1, 0
        while size == 1 or size * LEAST_STEPS <= len(train):
            batches = prepared.Batches(train, size, classes=compiling.classes(objective, settings.fit, data))
            try:
                for _ in range(2):  # the second one has the optimizer's variables
                    model.train_on_batch(*next(iter(batches)))
            except Exception as error:  # TensorFlow has several for a GPU that is full
                if "OOM" in str(error) or "RESOURCE_EXHAUSTED" in str(error) or "memory" in str(error):
                    return
                raise
            peak = _peak()
            if peak > limit:
                return
            yield size, peak
            if peak + 2 * (peak - before) > limit and before:
                return  # the next one takes about twice as much more
            size, before = 2 * size, peak


def free_memory() -> float:
    """Returns the bytes that this process may still take, of the machine and of its container."""
    free = float(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()))
    return free


def _peak() -> int:
    """Returns the most bytes that this process has had: on the GPU, where there is one."""
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    command.run(main)
