"""How long `prepare` takes for the embedded images, and its peak memory for many generated ones.

python -m benchmark.prepare
"""

import argparse
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
PARAMS = """
task: image
architecture: cnn
objective: classification
data: {{path: {path}}}
encode: {{size: [{side}, {side}], channels: {channels}}}
"""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200_000, help="how many to generate (default: 200,000)")
    parser.add_argument("--side", type=int, default=32, help="their height and width (default: 32)")
    arguments = parser.parse_args()
    print("| prepare | images | seconds | peak memory |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        fashion = measure(Path(scratch), ROOT / "datasets/fashion", 28, 1)
        print(f"| datasets/fashion | 20,000 | {fashion} |", flush=True)
        generated = Path(scratch) / "generated.parquet"
        # In a process of its own: a child's peak memory starts at what its parent held.
        maker = multiprocessing.get_context("spawn").Process(
            target=generate, args=(generated, arguments.images, arguments.side)
        )
        maker.start()
        maker.join()
        print(
            f"| generated, {arguments.side} × {arguments.side} RGB | {arguments.images:,} | "
            f"{measure(Path(scratch), generated, arguments.side, 3)} |"
        )


def measure(folder: Path, data: Path, side: int, channels: int) -> str:
    """Runs `prepare` in a process of its own; returns its seconds and its peak memory."""
    (folder / "params.yaml").write_text(PARAMS.format(path=data, side=side, channels=channels))
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "src.train.prepare"], cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("prepare failed")
    return f"{time.perf_counter() - started:.1f} | {usage.ru_maxrss / 1024:.0f} MB"


def generate(path: Path, count: int, side: int) -> None:
    """Writes a Parquet file of one row group with `count` different PNG images of ten classes."""
    random = np.random.default_rng(0)
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())]
    )
    cells = []
    for number in tqdm(range(count), "generating", unit="image"):
        pixels = random.integers(0, 256, (side, side, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        cells.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
    labels = [f"class {number % 10}" for number in range(count)]
    pq.write_table(pa.table({"image": cells, "label": labels}, schema), path, row_group_size=count)


if __name__ == "__main__":
    main()
