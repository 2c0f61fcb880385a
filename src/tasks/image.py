"""Images: any format, size and colour mode that Pillow reads, as pixels of one size and channel count."""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from src.errors import BadExampleError
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.params import Data

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # of Pillow's: one of the others runs Ghostscript
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
COLUMNS = ("image", "img", "path", "file", "file_name", "filename", "file_path", "bytes")
MOST_PIXELS = (
    80_000_000  # below Pillow's own bound of 89 million; a larger image is taken for a decompression bomb
)

RAW = "file"
CELL = (1.2, 1.2)

Pixels = Annotated[int, Field(ge=1, le=4096)]


class Options(Section):
    """`encode:` the pixels that the network sees."""

    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = [64, 64]  # height, width
    channels: Literal[1, 3] = 3
    aspect: Literal["crop", "pad", "stretch"] = "crop"  # how an image of another shape is made to fit


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads class folders, an archive of them, or a table with a column of paths or bytes."""
    from src import dataset

    return dataset.read(data, spool, SUFFIXES, COLUMNS)


def digest(raw: Any) -> str:
    """Returns a hash of the pixels, the same whatever format they were stored in."""
    image = _open(raw)
    header = f"{image.mode} {image.size}".encode()
    return hashlib.blake2b(header + image.tobytes(), digest_size=16).hexdigest()


class Encoder:
    """Encodes an image as (height, width, channels) uint8; nothing is learned from the data."""

    dtype = "uint8"
    layers: Layers = [{"Rescaling": {"scale": 1 / 255}}]
    vocabulary: list[str] = []

    def __init__(self, options: Options) -> None:
        self.options = options
        self.shape = (*options.size, options.channels)

    @classmethod
    def learn(cls, raws: Iterable[Any], options: Options) -> "Encoder":
        """Returns an encoder by `options` alone; `raws` is not read."""
        return cls(options)

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Returns the encoder that `save` wrote."""
        return cls(Options.model_validate(read_json(folder / "encoder.json")))

    def save(self, folder: Path) -> None:
        """Writes the options."""
        write_json(folder / "encoder.json", self.options.model_dump())

    def encode(self, raw: Any) -> np.ndarray:
        """Decodes, turns upright, converts, and resizes one image.

        Args:
            raw: The bytes of an image file.

        Returns:
            (height, width, channels) uint8.

        Raises:
            BadExampleError: If it is not a whole image that Pillow reads.
        """
        image = _open(raw).convert("L" if self.options.channels == 1 else "RGB")
        height, width = self.options.size
        if image.size != (width, height):
            image = _resize(image, (width, height), self.options.aspect)
        return np.asarray(image).reshape(self.shape)

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Shows one encoded image."""
        axes.imshow(array.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns nothing: images are looked at."""
        return {}


def fingerprint(inputs: np.ndarray) -> np.ndarray:
    """Returns a difference hash of encoded images, (examples,) uint64.

    Each image is averaged down to 8 × 9 grey pixels; a bit says whether a pixel is brighter than its left
    neighbour. Little of it changes when an image is compressed, scaled, or made brighter.
    """
    grey = inputs.mean(axis=3, dtype=np.float32)
    small = _average(_average(grey, 1, 8), 2, 9)
    brighter = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64)
    return np.packbits(brighter, axis=1).view(np.uint64).ravel()


def _average(images: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Averages an axis down to `count` parts, as equal as they go; they overlap if pixels are fewer."""
    size = images.shape[axis]
    starts = np.arange(count) * size // count
    ends = np.maximum(starts + 1, np.arange(1, count + 1) * size // count)
    parts = [images.take(range(*part), axis).mean(axis) for part in zip(starts, ends, strict=True)]
    return np.stack(parts, axis)


def _open(raw: Any) -> Image.Image:
    """Decodes the first frame of an image to 8-bit grey or RGB, upright, on white where transparent."""
    if not isinstance(raw, bytes) or not raw:
        raise BadExampleError("empty" if raw == b"" else f"expected an image, found {raw!r}")
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise BadExampleError(
                f"{image.width} × {image.height} pixels, expected at most {MOST_PIXELS:,} in all"
            )
        image.load()
        return _eight_bits(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError:
        raise BadExampleError("not an image in a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadExampleError(f"refused as a decompression bomb: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise
        raise BadExampleError(f"damaged image: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip instead of scaling
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadExampleError("pixels of over 16 bits; convert the image to 8 or 16 bits")
        return Image.fromarray((pixels // 257).astype(np.uint8))
    if image.mode == "F":
        raise BadExampleError("pixels are floating-point numbers; convert the image to 8 or 16 bits")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _resize(image: Image.Image, size: tuple[int, int], aspect: str) -> Image.Image:
    if aspect == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if aspect == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.BILINEAR)
