"""Volumes: NumPy arrays and NIfTI images, as voxels of one size in the grey levels of one window."""

import gzip
import hashlib
import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from numpy.lib import format as npy

from src.errors import BadExampleError
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section, model_validator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.params import Data

SUFFIXES = (".npy", ".npz", ".nii", ".nii.gz")
COLUMNS = ("volume", "scan", "path", "file", "file_name", "filename", "file_path", "bytes")
MOST_VOXELS = 512**3  # a larger volume is taken for a decompression bomb
PERCENTILES = (0.5, 99.5)
# What NumPy, zipfile, gzip and nibabel raise for damaged files.
DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
DAMAGE += (SyntaxError, tokenize.TokenError, zlib.error, zipfile.BadZipFile)
DAMAGE += (HeaderDataError, ImageFileError, OrientationError)

RAW = "file"
CELL = (2.4, 0.9)

Voxels = Annotated[int, Field(ge=1, le=512)]


class Options(Section):
    """`encode:` the voxels that the network sees."""

    size: Annotated[list[Voxels], Field(min_length=3, max_length=3)] = [32, 32, 32]  # depth, height, width
    channels: Annotated[int, Field(ge=1, le=64)] = 1  # more than one: the last axis of the arrays
    aspect: Literal["stretch", "crop"] = (
        "stretch"  # resample, or keep the scale and cut or pad about the middle
    )
    # Intensities from black to white; None: learned from the training split.
    window: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _window_rises(self) -> "Options":
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"a window that rises, such as [0, 1], instead of {self.window}")
        return self


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads class folders, an archive of them, or a table with a column of paths or bytes."""
    from src import dataset

    return dataset.read(data, spool, SUFFIXES, COLUMNS)


def digest(raw: Any) -> str:
    """Returns a hash of the voxels, the same whatever format and number type they were stored in."""
    voxels = _open(raw)
    checksum = hashlib.blake2b(f"{voxels.shape}".encode(), digest_size=16)
    checksum.update(voxels.data)
    return checksum.hexdigest()


class Encoder:
    """Encodes a volume as (depth, height, width, channels) uint8.

    Args:
        options: The `encode:` section.
        window: Intensities that become 0 and 255; beyond them all is black or white.
    """

    dtype = "uint8"
    layers: Layers = [{"Rescaling": {"scale": 1 / 255}}]
    vocabulary: list[str] = []

    def __init__(self, options: Options, window: tuple[float, float]) -> None:
        self.options = options
        self.window = window
        self.shape = (*options.size, options.channels)

    @classmethod
    def learn(cls, raws: Iterable[Any], options: Options) -> "Encoder":
        """Learns the window, if `options` has none: the medians of the volumes' low and high percentiles.

        Where nearly all is background, and these are the same, the smallest and the largest intensity.
        """
        if options.window:
            return cls(options, (options.window[0], options.window[1]))
        marks = np.array([np.percentile(_open(raw), (*PERCENTILES, 0, 100)) for raw in raws])
        low, high = np.median(marks[:, :2], axis=0)
        if low == high:
            low, high = marks[:, 2].min(), marks[:, 3].max()
        return cls(options, (float(low), float(high)))

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Returns the encoder that `save` wrote."""
        content = read_json(folder / "encoder.json")
        return cls(Options.model_validate(content["options"]), tuple(content["window"]))

    def save(self, folder: Path) -> None:
        """Writes the options and the window."""
        content = {"options": self.options.model_dump(), "window": list(self.window)}
        write_json(folder / "encoder.json", content)

    def encode(self, raw: Any) -> np.ndarray:
        """Resizes one volume and spreads its window over 256 grey levels.

        Args:
            raw: The bytes of a file.

        Returns:
            (depth, height, width, channels) uint8.

        Raises:
            BadExampleError: If it is no volume, or has other channels than `encode.channels` says.
        """
        voxels = _open(raw)
        if voxels.shape[3] != self.options.channels:
            raise BadExampleError(
                f"{_times(voxels.shape)} voxels, expected {self.options.channels} channels (encode.channels)"
            )
        voxels = (_stretch if self.options.aspect == "stretch" else _crop)(voxels, self.options.size)
        low, high = self.window
        return np.rint((voxels - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Shows the three middle slices of one encoded volume, across depth, height and width."""
        grey = array.mean(axis=3)
        slices = [grey.take(length // 2, axis) for axis, length in enumerate(grey.shape)]
        height = max(len(part) for part in slices)
        gap = max(1, height // 16)
        padded = [
            np.pad(part, ((0, height - len(part)), (0, gap)), constant_values=np.nan) for part in slices
        ]
        picture = np.hstack(padded)[:, :-gap]
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns nothing: volumes are looked at."""
        return {}


def _stretch(voxels: np.ndarray, size: list[int]) -> np.ndarray:
    """Resamples the first three axes by linear interpolation between the centres of voxels."""
    from scipy.ndimage import zoom

    factors = [wanted / found for wanted, found in zip(size, voxels.shape, strict=False)]
    return zoom(voxels, (*factors, 1), order=1, mode="nearest", grid_mode=True)


def _crop(voxels: np.ndarray, size: list[int]) -> np.ndarray:
    """Cuts the first three axes to size about their middle, and pads them by the smallest intensity."""
    darkest = voxels.min()
    for axis, wanted in enumerate(size):
        found = voxels.shape[axis]
        start = max(0, found - wanted) // 2
        voxels = voxels.take(range(start, min(found, start + wanted)), axis)
        missing = wanted - voxels.shape[axis]
        around = [(0, 0)] * 4
        around[axis] = (missing // 2, missing - missing // 2)
        voxels = np.pad(voxels, around, constant_values=darkest)
    return voxels


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────


def _open(raw: Any) -> np.ndarray:
    """Reads a volume, (depth, height, width, channels) float32, and checks its voxels."""
    if not isinstance(raw, bytes) or not raw:
        raise BadExampleError("empty" if raw == b"" else f"expected a volume, found {raw!r}")
    kinds = {b"\x93NUMPY": _read_npy, b"PK": _read_npz}
    reader = next((kinds[start] for start in kinds if raw.startswith(start)), _read_nifti)
    try:
        with np.errstate(all="ignore"):  # what overflows float32 becomes infinite
            voxels = reader(io.BytesIO(raw))
    except DAMAGE as error:
        raise BadExampleError(f"damaged volume: {' '.join(str(error).split())}") from None
    if not np.isfinite(voxels).all():
        raise BadExampleError("voxels that are no numbers (NaN) or infinite")
    if voxels.min() == voxels.max():
        raise BadExampleError(f"every voxel is {voxels.flat[0]:g}")
    return np.ascontiguousarray(voxels)


def _read_npy(file: BinaryIO) -> np.ndarray:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise BadExampleError(f"a .npy file of version {version}, expected numbers alone")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise BadExampleError("a pickled .npy file; save an array of numbers")
    _check(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    content = file.read(size)
    if len(content) < size:
        raise BadExampleError(f"cut short: {len(content):,} of {size:,} bytes")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return _channels(array.astype(np.float32))


def _read_npz(file: BinaryIO) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise BadExampleError(f"{len(names)} arrays ({', '.join(names[:3])}), expected one")
        with archive.open(names[0]) as member:
            return _read_npy(member)  # type: ignore[arg-type]


def _read_nifti(file: Any) -> np.ndarray:
    """Reads a NIfTI image, with its own scaling of intensities, its axes turned right, front and up."""
    if file.getvalue().startswith(b"\x1f\x8b"):
        file = gzip.GzipFile(fileobj=file)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        file.seek(0)
        if kind.header_class.may_contain_header(file.read(kind.header_class.sizeof_hdr)):
            break
    else:
        raise BadExampleError("not a .npy, .npz or NIfTI file")
    file.seek(0)
    image = kind.from_file_map({"image": FileHolder(fileobj=file), "header": FileHolder(fileobj=file)})
    _check(image.shape, image.get_data_dtype())
    voxels = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
    file.read(1)  # at the end of a gzip file its checksum is compared
    return _channels(voxels)


def _check(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Checks what a header says before any voxel is read."""
    if dtype.kind not in "biuf":
        raise BadExampleError(f"voxels of type {dtype}, expected whole or real numbers")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise BadExampleError(f"{_times(shape) or 'no'} voxels, expected depth × height × width (× channels)")
    if math.prod(shape) > MOST_VOXELS:
        raise BadExampleError(f"{_times(shape)} voxels, expected at most {MOST_VOXELS:,} in all")


def _channels(voxels: np.ndarray) -> np.ndarray:
    """Gives a volume of one channel an axis for it."""
    return voxels if voxels.ndim == 4 else voxels[..., None]


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
