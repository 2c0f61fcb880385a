"""Audio: whatever libsndfile decodes, as a waveform of one rate and length, mixed to mono.

What the network sees first is the log-mel spectrogram of it, which a layer of the model makes.
"""

import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import soundfile
import soxr

from src.errors import BadExampleError
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section, model_validator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.params import Data

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
COLUMNS = ("audio", "sound", "path", "file", "file_name", "filename", "file_path", "bytes")
MOST_SAMPLES = 700_000_000  # an hour of stereo at 96 kHz; more is taken for a decompression bomb
RATES = (100, 1_000_000)  # Hz; microphones for whales and for bats lie within
LOUDEST = 8.0  # full scale is 1; samples far beyond it are in another unit, and would all be clipped
BLOCK = 1 << 18  # samples that are decoded at once
UNKNOWN = 0x7FFFFF00  # a wav that was written to a pipe declares this length or more

FULL_SCALE = 32768
FLOOR = 1e-6  # power below which all is silence: above the noise of 16 bits, by which runtimes differ
DARK, BRIGHT = -60.0, 40.0  # decibels: of FLOOR, and about those of a loud tone

RAW = "file"
CELL = (1.8, 1.5)


class Options(Section):
    """`encode:` the clip and the spectrogram that the network sees."""

    rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000  # Hz, to which all is resampled
    seconds: Annotated[float, Field(gt=0, le=600)] = (
        2.0  # longer ones are cut, shorter ones padded by silence
    )
    keep: Literal["centre", "start"] = "centre"  # of a longer one; a shorter one is put there
    mel_bins: Annotated[int, Field(ge=1, le=512)] = 64
    window_ms: Annotated[float, Field(gt=0)] = 32.0
    hop_ms: Annotated[float, Field(gt=0)] = 16.0  # from one window to the next

    @model_validator(mode="after")
    def _window_fits(self) -> "Options":
        if self.window < 2 or self.hop < 1:
            raise ValueError(f"a window_ms and a hop_ms of a few samples at {self.rate} Hz")
        if self.transform // 2 >= self.samples:
            raise ValueError(
                f"more seconds, or a shorter window_ms, than {self.seconds:g} and {self.window_ms:g}"
            )
        return self

    @property
    def samples(self) -> int:
        """Length of a clip."""
        return round(self.rate * self.seconds)

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return round(self.rate * self.window_ms / 1000)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return round(self.rate * self.hop_ms / 1000)

    @property
    def transform(self) -> int:
        """Length of the Fourier transform: the window's, up to a power of two."""
        return 1 << (self.window - 1).bit_length()

    @property
    def frames(self) -> int:
        """Windows of a clip; the first is centred on its first sample."""
        return self.samples // self.hop + 1


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads class folders, an archive of them, or a table with a column of paths or bytes."""
    from src import dataset

    return dataset.read(data, spool, SUFFIXES, COLUMNS)


def digest(raw: Any) -> str:
    """Returns a hash of the samples and their rate, the same for every lossless format."""
    with _open(raw) as file:
        checksum = hashlib.blake2b(f"{file.samplerate} {file.channels}".encode(), digest_size=16)
        decoded = 0
        for block in _blocks(file):
            if not np.isfinite(block).all():
                raise BadExampleError("samples that are no numbers (NaN) or infinite")
            if np.abs(block).max(initial=0) > LOUDEST:
                raise BadExampleError(f"samples as large as {np.abs(block).max():g}, expected −1 to 1")
            checksum.update(block.tobytes())
            decoded += len(block)
        if decoded < file.frames or _ends_early(raw, file.extra_info):
            raise BadExampleError(f"cut short after {decoded / file.samplerate:.3g} s")
    return checksum.hexdigest()


class Encoder:
    """Encodes a recording as (samples,) int16; nothing is learned from the data."""

    dtype = "int16"
    vocabulary: list[str] = []

    def __init__(self, options: Options) -> None:
        self.options = options
        self.shape = (options.samples,)
        spectrogram = {
            "fft_length": options.transform,
            "sequence_stride": options.hop,
            "sequence_length": options.window,
            "sampling_rate": options.rate,
            "num_mel_bins": options.mel_bins,
            "min_power": FLOOR,
            "top_db": 1000.0,  # never reached: Keras counts it from the loudest clip of the batch
        }
        self.layers: Layers = [
            {"Rescaling": {"scale": 1 / FULL_SCALE}},
            {"MelSpectrogram": spectrogram},  # in decibels
            {"Reshape": {"target_shape": [options.mel_bins, options.frames, 1]}},
            {"Rescaling": {"scale": 0.05, "offset": 1.0}},  # −60 to 40 dB becomes −2 to 3
        ]

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
        """Decodes the part that is kept, mixes it to mono, and resamples it.

        Args:
            raw: The bytes of an audio file.

        Returns:
            (samples,) int16; full scale is ±32768, and what is louder is clipped.

        Raises:
            BadExampleError: If it is not audio that libsndfile reads.
        """
        with _open(raw) as file:
            wanted = math.ceil(self.options.seconds * file.samplerate)
            if file.frames > wanted and self.options.keep == "centre":
                _seek(file, (file.frames - wanted) // 2)
            parts = [block.mean(axis=1) for block in _blocks(file, wanted)]
            if not parts:
                raise BadExampleError("damaged audio: no sample can be decoded")
            mono = np.concatenate(parts)
            if file.samplerate != self.options.rate:
                mono = soxr.resample(mono, file.samplerate, self.options.rate)
        clip = np.rint(mono[: self.options.samples] * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1)
        missing = self.options.samples - len(clip)
        before = missing // 2 if self.options.keep == "centre" else 0
        return np.pad(clip.astype(np.int16), (before, missing - before))

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Shows the waveform of one encoded clip, and below it the spectrogram that the network sees."""
        columns = np.array_split(array / FULL_SCALE, min(200, len(array)))
        seconds = np.linspace(0, 1, len(columns))
        lowest, highest = (np.array([edge(part) for part in columns]) for edge in (np.min, np.max))
        axes.fill_between(
            seconds, 0.85 + 0.15 * lowest, 0.85 + 0.15 * highest, color="#2b6cb0", linewidth=0.3
        )
        axes.imshow(
            decibels(array, self.options),
            extent=(0, 1, 0, 0.68),
            aspect="auto",
            origin="lower",
            cmap="magma",
            vmin=DARK,
            vmax=BRIGHT,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1))

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns nothing: audio is looked at."""
        return {}


def decibels(array: np.ndarray, options: Options) -> np.ndarray:
    """Returns the log-mel spectrogram of one encoded clip, (mel bins, frames), as Keras' layer makes it."""
    around = options.transform // 2
    padded = np.pad(array / FULL_SCALE, around, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, options.transform)[:: options.hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(options.window) / options.window)
    before = (options.transform - options.window) // 2
    window = np.pad(hann, (before, options.transform - options.window - before))
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    # Triangles between equally spaced points of HTK's mel scale, from 20 Hz to half the rate.
    mel = 1127 * np.log1p(np.fft.rfftfreq(options.transform, 1 / options.rate) / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), mel[-1], options.mel_bins + 2)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = np.minimum((mel - low) / (middle - low), (high - mel) / (high - middle)).clip(0)
    return 10 * np.log10(np.maximum(bands @ power.T, FLOOR))


def _open(raw: Any) -> soundfile.SoundFile:
    if not isinstance(raw, bytes) or not raw:
        raise BadExampleError("empty" if raw == b"" else f"expected audio, found {raw!r}")
    try:
        file = soundfile.SoundFile(io.BytesIO(raw))
    except soundfile.LibsndfileError as error:
        known = "Format not recognised" not in error.error_string
        raise BadExampleError(
            f"damaged audio: {error.error_string}" if known else "not audio in a known format"
        ) from None
    if not file.frames:
        raise BadExampleError("a header without samples")
    if file.frames * file.channels > MOST_SAMPLES:
        raise BadExampleError(
            f"{file.frames:,} samples of {file.channels} channels, expected at most {MOST_SAMPLES:,} in all"
        )
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise BadExampleError(f"{file.samplerate:,} samples a second, expected {RATES[0]:,} to {RATES[1]:,}")
    return file


def _seek(file: soundfile.SoundFile, frame: int) -> None:
    try:
        file.seek(frame)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise BadExampleError(f"damaged audio: {getattr(error, 'error_string', error)}") from None


def _blocks(file: soundfile.SoundFile, most: float = math.inf) -> Iterator[np.ndarray]:
    """Yields the samples from where the file stands, up to `most` frames, (frames, channels) float32."""
    size = max(1, BLOCK // file.channels)
    try:
        while most > 0 and len(block := file.read(min(size, most), "float32", always_2d=True)):
            most -= len(block)
            yield block
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise BadExampleError(f"damaged audio: {getattr(error, 'error_string', error)}") from None


def _ends_early(raw: bytes, log: str) -> bool:
    """Whether a file is shorter than it says, which libsndfile passes over in wav, aiff and ogg.

    Args:
        raw: The file.
        log: What libsndfile noted about its header, such as `data : 48000 (should be 43195)`.
    """
    if raw.startswith(b"OggS"):
        start = raw.rindex(b"OggS")
        segments = raw[start + 27 : start + 27 + raw[start + 26]] if len(raw) > start + 26 else b""
        last = bool(raw[start + 5 : start + 6] and raw[start + 5] & 4)  # the flag of a stream's last page
        return not last or len(raw) < start + 27 + len(segments) + sum(segments)
    declared = re.search(r"(?:data|SSND) : (\d+) \(should be", log)
    return declared is not None and int(declared[1]) < UNKNOWN
