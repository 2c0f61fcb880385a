"""Makes datasets/volumes: generated shapes in three dimensions, of random pose, size, blur and noise.

    python -m datasets.make_volumes datasets/volumes

Nothing is measured: each voxel is a formula and a random number. The same command writes the same voxels.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

SIDE = 16  # voxels
EXAMPLES = {"train": 160, "test": 75}  # of each class
CLASSES = ("ball", "box", "ring", "two balls")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for split, count in EXAMPLES.items():
        rows = [example(name, draw) for _ in range(count) for name in CLASSES]
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, arguments.output / f"{split}.parquet", compression="zstd")


def example(name: str, draw: np.random.Generator) -> dict[str, object]:
    """Returns one volume as the bytes of a .npy file, and what was drawn for it."""
    radius, blur, noise = draw.uniform(4, 6), draw.uniform(0.3, 1), draw.uniform(0.1, 0.4)
    inside = gaussian_filter((distance(name, radius, draw) < 0).astype(float), blur)
    background, contrast = draw.uniform(0.1, 0.3), draw.uniform(0.3, 0.6)
    voxels = background + contrast * (inside + noise * draw.normal(size=inside.shape))
    levels = np.rint(voxels.clip(0, 1) * 31).astype(np.uint8) * 8  # 5 bits: noise does not compress
    buffer = io.BytesIO()
    np.save(buffer, levels)
    return {
        "volume": buffer.getvalue(),
        "label": name,
        "radius": round(radius, 2),
        "blur": round(blur, 2),
        "noise": round(noise, 2),
        "noisy": "noisy" if noise > 0.25 else "clear",
    }


def distance(name: str, radius: float, draw: np.random.Generator) -> np.ndarray:
    """Returns a function of each voxel that is negative inside the shape, (SIDE, SIDE, SIDE) float64.

    Args:
        name: Of the class.
        radius: About the shape's greatest reach from its centre, in voxels.
        draw: For the pose and the proportions.
    """
    centre = (SIDE - 1) / 2 + draw.uniform(-2, 2, 3)
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1) - centre
    points = Rotation.random(rng=draw).apply(grid.reshape(-1, 3)).reshape(grid.shape)
    proportion = draw.uniform(0.35, 0.5)
    if name == "ball":
        return np.linalg.norm(points, axis=-1) - draw.uniform(0.5, 0.8) * radius
    if name == "box":
        sides = radius * np.array([proportion / 2, 0.6, 0.9])
        return (np.abs(points) - sides).max(axis=-1)
    if name == "ring":  # a torus about the third axis
        from_circle = np.hypot(points[..., 0], points[..., 1]) - radius * (1 - proportion / 2)
        return np.hypot(from_circle, points[..., 2]) - radius * proportion / 2 - 0.5
    apart = np.array([radius * (1 - proportion), 0, 0])
    balls = [np.linalg.norm(points - side * apart, axis=-1) for side in (-1, 1)]
    return np.minimum(*balls) - radius * proportion


if __name__ == "__main__":
    main()
