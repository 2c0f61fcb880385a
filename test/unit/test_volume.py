"""Volumes of every format become the right voxels; what is no whole volume is refused."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from src.errors import BadExampleError, UserError
from src.params import load
from src.tasks import volume
from src.tasks.volume import Encoder, Options

SCAN = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"  # a real brain, which nibabel carries


@pytest.fixture(scope="module")
def ring(root) -> np.ndarray:
    """A volume of datasets/volumes, (16, 16, 16) uint8."""
    with pq.ParquetFile(root / "datasets/volumes/test.parquet") as file:
        rows = next(file.iter_batches(20, columns=["volume", "label"])).to_pylist()
    return np.load(io.BytesIO(next(row["volume"] for row in rows if row["label"] == "ring")))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def nifti(array: np.ndarray, affine=None, kind=nibabel.Nifti1Image) -> bytes:
    return kind(array, np.eye(4) if affine is None else affine).to_bytes()


def encoder(*size: int, window=(0, 255), **options) -> Encoder:
    return Encoder.learn([], Options(size=list(size), window=list(window), **options))


# ── Formats ────────────────────────────────────────────────────────────────────────────────────────────

FORMATS = {
    "npy": npy,
    "npy in Fortran's order": lambda array: npy(np.asfortranarray(array)),
    "npy big-endian": lambda array: npy(array.astype(">i4")),
    "npz": lambda array: npz(volume=array),
    "NIfTI": nifti,
    "NIfTI, packed": lambda array: gzip.compress(nifti(array)),
    "NIfTI-2": lambda array: nifti(array, kind=nibabel.Nifti2Image),
    "one channel": lambda array: npy(array[..., None]),
}


@pytest.mark.parametrize("store", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_every_format_and_number_type_gives_the_very_voxels_and_one_digest(ring, store, dtype):
    raw = store(ring.astype(dtype))
    array = encoder(16, 16, 16).encode(raw)
    assert array.dtype == np.uint8
    assert np.array_equal(array[..., 0], ring)
    assert volume.digest(raw) == volume.digest(npy(ring))


def test_a_real_scan_is_scaled_and_turned_as_its_header_says():
    image: Any = nibabel.load(SCAN)
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
    expected = np.asarray(image.dataobj)[::-1].astype(float)
    low, high = expected.min(), expected.max()
    array = encoder(*image.shape, window=(low, high)).encode(SCAN.read_bytes())
    assert np.abs(array[..., 0] - (expected - low) / (high - low) * 255).max() <= 0.51


def test_scaled_intensities_are_what_the_header_makes_of_them():
    image = nibabel.Nifti1Image(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4))
    image.header.set_slope_inter(2, -10)
    array = encoder(3, 3, 3, window=(-10, 42)).encode(image.to_bytes())
    assert (array.min(), array.max()) == (0, 255)


def test_several_channels_are_the_last_axis(ring):
    both = np.stack([ring, ring[::-1]], axis=-1)
    array = encoder(16, 16, 16, channels=2).encode(npy(both))
    assert np.array_equal(array, both)
    with pytest.raises(BadExampleError, match=r"16 × 16 × 16 × 2 voxels, expected 1 channels"):
        encoder(16, 16, 16).encode(npy(both))
    with pytest.raises(BadExampleError, match=r"16 × 16 × 16 × 1 voxels, expected 2 channels"):
        encoder(16, 16, 16, channels=2).encode(npy(ring))


# ── Size and window ────────────────────────────────────────────────────────────────────────────────────


def test_resampling_is_linear_between_the_centres_of_voxels():
    ramp = np.broadcast_to(np.arange(0, 160, 10.0), (4, 8, 16))
    array = encoder(4, 8, 8).encode(npy(ramp))
    assert array[0, 0, :, 0].tolist() == [5, 25, 45, 65, 85, 105, 125, 145]
    assert encoder(2, 16, 32).encode(npy(ramp)).shape == (2, 16, 32, 1)
    assert (encoder(3, 1, 16).encode(npy(ramp))[:, 0, :, 0] == ramp[:3, 0]).all()


@pytest.mark.parametrize(("size", "inside"), [((8, 8, 8), slice(4, 12)), ((16, 16, 16), slice(0, 16))])
def test_cropping_keeps_the_middle_and_the_scale(ring, size, inside):
    array = encoder(*size, aspect="crop").encode(npy(ring))
    assert np.array_equal(array[..., 0], ring[inside, inside, inside])


def test_a_smaller_volume_is_padded_by_its_darkest_voxel(ring):
    array = encoder(20, 16, 9, aspect="crop").encode(npy(ring.astype(float) + 50))
    assert array.shape == (20, 16, 9, 1)
    assert (array[[0, 1, -2, -1]] == ring.min() + 50).all()
    assert np.array_equal(array[2:18, :, :, 0], ring[:, :, 3:12] + 50)


def test_beyond_the_window_all_is_black_or_white():
    array = encoder(1, 1, 5, window=(-100, 100)).encode(npy(np.array([[[-900.0, -100, 0, 100, 900]]])))
    assert array.ravel().tolist() == [0, 0, 128, 255, 255]


def test_the_window_is_learned_from_percentiles_that_a_few_outliers_do_not_move(ring, tmp_path):
    noisy = ring.astype(float)
    noisy[0, 0, 0] = 1e6
    learned = Encoder.learn([npy(noisy), npy(ring), npy(ring)], Options(size=[16, 16, 16]))
    assert learned.window == pytest.approx(np.percentile(ring, (0.5, 99.5)))
    learned.save(tmp_path)
    again = Encoder.load(tmp_path)
    assert again.window == learned.window
    assert np.array_equal(again.encode(npy(noisy)), learned.encode(npy(noisy)))


def test_a_window_is_learned_where_nearly_all_is_background():
    sparse = np.zeros((16, 16, 16))
    sparse[8, 8, 8] = 3
    learned = Encoder.learn([npy(sparse)], Options(size=[16, 16, 16]))
    assert learned.window == (0, 3)
    assert learned.encode(npy(sparse)).max() == 255


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("window: [1, 0]", "a window that rises, such as [0, 1], instead of [1.0, 0.0]"),
        ("size: [16, 16]", "encode.size: found [16, 16]"),
        ("size: [0, 1, 1]", "encode.size.0: found 0, expected greater than or equal to 1"),
    ],
)
def test_options_that_make_no_volume_are_one_sentence(workspace, options, expected):
    Path("params.yaml").write_text(
        f"task: volume\narchitecture: cnn\ndata: {{path: scans}}\nencode: {{{options}}}\n"
    )
    with pytest.raises(UserError) as error:
        load()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(16, 16, 16), (4, 8, 12)])
@pytest.mark.parametrize("channels", [1, 2])
def test_three_slices_are_drawn_side_by_side(ring, size, channels):
    from matplotlib.figure import Figure

    axes = Figure(figsize=volume.CELL).subplots()
    one = encoder(*size, channels=channels)
    array = one.encode(npy(np.stack([ring] * channels, axis=-1)))
    one.draw(axes, array)
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape == (max(size[:2]), sum((size[2], size[2], size[1])) + 2)
    assert np.array_equal(picture[: size[1], : size[2]], array[size[0] // 2].mean(axis=2))


# ── Bad files ──────────────────────────────────────────────────────────────────────────────────────────


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """A .npy file that ends behind its header."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def huge_nifti() -> bytes:
    """A small .nii.gz whose header declares 30,000 voxels along each axis."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header["dim"][1:4] = 30_000
    return gzip.compress(image.header.binaryblock + bytes(1000))


BOX = np.arange(27.0).reshape(3, 3, 3)
BAD = {
    "text": (b"this is not a volume", "not a .npy, .npz or NIfTI file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not a .npy, .npz or NIfTI file"),
    "packed text": (gzip.compress(b"this is not a volume"), "not a .npy, .npz or NIfTI file"),
    "empty": (b"", "empty"),
    "nothing": (None, "expected a volume, found None"),
    "NaN": (npy(np.where(BOX == 5, np.nan, BOX)), "voxels that are no numbers (NaN) or infinite"),
    "infinite": (nifti(np.where(BOX == 5, np.inf, BOX)), "voxels that are no numbers (NaN) or infinite"),
    "constant": (npy(np.full((3, 3, 3), 7)), "every voxel is 7"),
    "a picture's rank": (npy(BOX[0]), "3 × 3 voxels, expected depth × height × width (× channels)"),
    "five axes": (nifti(np.zeros((2, 2, 2, 2, 2))), "2 × 2 × 2 × 2 × 2 voxels, expected depth"),
    "a single number": (npy(np.array(1.0)), "no voxels, expected depth × height × width"),
    "no voxel": (npy(np.zeros((3, 0, 3))), "3 × 0 × 3 voxels, expected depth × height × width"),
    "too large for float32": (npy(BOX * 1e300), "voxels that are no numbers (NaN) or infinite"),
    "pickled": (npy(np.full((2, 2, 2), None)), "a pickled .npy file; save an array of numbers"),
    "complex": (npy(BOX * 1j), "voxels of type complex128, expected whole or real numbers"),
    "words": (npy(np.full((2, 2, 2), "a")), "voxels of type <U1, expected whole or real numbers"),
    "several arrays": (npz(scan=BOX, mask=BOX), "2 arrays (scan.npy, mask.npy), expected one"),
    "absurdly large npy": (header((100_000,) * 3), "100000 × 100000 × 100000 voxels, expected at most"),
    "absurdly large NIfTI": (huge_nifti(), "30000 × 30000 × 30000 voxels, expected at most"),
    "negative length": (header((-1, 2, 3)), "-1 × 2 × 3 voxels, expected depth"),
    "less than declared": (header((8, 8, 8)), "cut short: 0 of 2,048 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_volume_is_refused_with_a_reason(raw, reason):
    with pytest.raises(BadExampleError) as error:
        volume.digest(raw)
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("store", FORMATS.values(), ids=FORMATS)
def test_a_truncated_volume_is_refused_with_a_reason(ring, store):
    raw = store(ring)
    for size in (20, 100, 300, len(raw) // 2, len(raw) - 2):
        with pytest.raises(BadExampleError) as error:
            volume.digest(raw[:size])
        assert str(error.value).startswith(("damaged", "cut short", "not a .npy, .npz or NIfTI file"))


def test_a_zip_that_is_no_npz_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "not an array")
    with pytest.raises(BadExampleError, match=r"^damaged volume: "):
        volume.digest(buffer.getvalue())


def test_damaged_bytes_never_raise_anything_else(ring):
    draw = np.random.default_rng(0)
    refused = 0
    for store in FORMATS.values():
        whole = store(ring)
        for _ in range(60):
            damaged = bytearray(whole)
            for position in draw.integers(min(len(whole), 700), size=4):
                damaged[position] = draw.integers(256)
            try:
                volume.digest(bytes(damaged))
            except BadExampleError:
                refused += 1
    assert refused > 100
