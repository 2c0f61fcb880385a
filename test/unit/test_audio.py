"""Audio of every format, rate and length becomes the right clip; what is no whole recording is refused."""

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from src import engine
from src.errors import BadExampleError, UserError
from src.network import Frame, Input, Output
from src.params import load
from src.tasks import audio
from src.tasks.audio import Encoder, Options

LOSSLESS = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16")]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW")]
FULL = 32768


@pytest.fixture(scope="module")
def prompt(root) -> np.ndarray:
    """A real recording: over a second of speech at 8 kHz, (samples,) int16."""
    with pq.ParquetFile(root / "datasets/speech/test.parquet") as file:
        rows = next(file.iter_batches(60, columns=["audio"])).to_pylist()
    longest = max(rows, key=lambda row: len(row["audio"]["bytes"]))
    return soundfile.read(io.BytesIO(longest["audio"]["bytes"]), dtype="int16")[0]


def stored(samples, rate=8000, kind="WAV", subtype="PCM_16") -> bytes:
    """The bytes of a file."""
    if subtype == "FLOAT" and samples.dtype == np.int16:  # libsndfile leaves integers in their own unit
        samples = samples / FULL
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encoder(**options) -> Encoder:
    return Encoder(Options(**{"rate": 8000, "seconds": 1.0, "keep": "start", **options}))


def tone(hertz: float, rate: int, seconds: float) -> np.ndarray:
    """A sine of half the full scale, (samples,) float64."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


# ── Clips ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS)
def test_a_lossless_format_gives_the_very_samples_and_one_digest(prompt, kind, subtype):
    raw = stored(prompt, kind=kind, subtype=subtype)
    array = encoder(seconds=len(prompt) / 8000).encode(raw)
    assert array.dtype == np.int16
    assert np.array_equal(array, prompt)
    assert audio.digest(raw) == audio.digest(stored(prompt))


@pytest.mark.parametrize(("kind", "subtype"), LOSSY)
def test_a_lossy_format_gives_nearly_the_samples(prompt, kind, subtype):
    raw = stored(prompt, kind=kind, subtype=subtype)
    array = encoder(seconds=len(prompt) / 8000).encode(raw).astype(float)
    assert np.corrcoef(array, prompt)[0, 1] > 0.9
    assert audio.digest(raw) != audio.digest(stored(prompt))


def test_the_rate_and_the_channels_are_part_of_the_digest(prompt):
    both = np.stack([prompt, prompt], axis=1)
    digests = {audio.digest(raw) for raw in (stored(prompt), stored(prompt, 11025), stored(both))}
    assert len(digests) == 3


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count_gives_the_same_tone(rate, channels):
    samples = np.repeat(tone(440, rate, 1.5)[:, None], channels, axis=1)
    array = encoder().encode(stored(samples, rate, subtype="PCM_24"))
    expected = tone(440, 8000, 1.0) * FULL
    middle = slice(100, -100)  # the resampling filter reaches over the edges
    assert array.shape == (8000,)
    assert np.abs(array - expected)[middle].max() < 0.01 * FULL


def test_channels_are_averaged():
    left = tone(440, 8000, 1)
    array = encoder().encode(stored(np.stack([left, np.zeros_like(left)], axis=1)))
    assert np.abs(array - left / 2 * FULL).max() <= 1


@pytest.mark.parametrize(("keep", "first"), [("start", 1), ("centre", 4001)])
def test_a_longer_recording_is_cut(keep, first):
    array = encoder(keep=keep).encode(stored(np.arange(1, 16001, dtype=np.int16)))
    assert array.tolist() == list(range(first, first + 8000))


@pytest.mark.parametrize(("keep", "before"), [("start", 0), ("centre", 3990)])
def test_a_much_shorter_recording_is_padded_by_silence(keep, before):
    array = encoder(keep=keep).encode(stored(np.arange(1, 21, dtype=np.int16)))
    assert array.nonzero()[0].tolist() == list(range(before, before + 20))
    assert array[before : before + 20].tolist() == list(range(1, 21))


def test_what_is_louder_than_full_scale_is_clipped():
    array = encoder().encode(stored(np.array([0.5, 1.5, -1.5]), subtype="FLOAT"))
    assert array[:3].tolist() == [16384, 32767, -32768]


def test_silence_is_fine():
    raw = stored(np.zeros(4000, np.int16))
    audio.digest(raw)
    assert not encoder().encode(raw).any()


def test_only_the_part_that_is_kept_of_an_hour_is_resampled():
    hour = stored(np.zeros(3600 * 8000, np.int16), kind="FLAC")
    assert encoder(rate=16_000).encode(hour).shape == (16_000,)


# ── The spectrogram ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def keras():
    """Keras, started."""
    engine.start()
    import keras

    return keras


def begin(keras, encoder: Encoder):
    """The layers that every network begins with, as a model."""
    inputs, x = Frame(Input(encoder.shape, encoder.dtype, encoder.layers), Output(2, "softmax")).begin()
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "options", [{}, {"rate": 16_000, "mel_bins": 64, "window_ms": 25, "hop_ms": 10}, {"window_ms": 20}]
)
def test_the_layers_make_the_spectrogram_that_is_drawn(keras, prompt, options):
    one = encoder(**options)
    array = one.encode(stored(prompt))
    made = np.asarray(begin(keras, one)(array[None]))
    assert made.shape == (1, one.options.mel_bins, one.options.frames, 1)
    drawn = audio.decibels(array, one.options)
    assert made[0, :, :, 0] == pytest.approx(drawn * 0.05 + 1, abs=2e-3)
    assert -2.001 < made.min() < made.max() < 3.5
    assert made.std() > 0.3


def test_a_tone_lights_the_band_of_its_pitch(keras):
    one = encoder(mel_bins=40)
    clips = np.stack([one.encode(stored(tone(hertz, 8000, 1))) for hertz in (200, 1000, 3000)])
    bands = np.asarray(begin(keras, one)(clips))[..., 0].mean(axis=2).argmax(axis=1)
    # 40 triangles between 20 Hz and 4 kHz, equally spaced in mel.
    mel = 1127 * np.log1p(np.array([20, 200, 1000, 3000, 4000]) / 700)
    expected = (mel[1:4] - mel[0]) / (mel[4] - mel[0]) * 41 - 1
    assert bands == pytest.approx(expected, abs=0.6)


def test_a_spectrogram_does_not_depend_on_what_stands_beside_it(keras, prompt):
    one = encoder()
    quiet, loud = one.encode(stored(prompt // 256)), one.encode(stored(tone(440, 8000, 1)))
    model = begin(keras, one)
    assert np.array_equal(model(quiet[None])[0], model(np.stack([quiet, loud]))[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seconds": 0.01}, "more seconds, or a shorter window_ms, than 0.01 and 32"),
        ({"hop_ms": 0.01}, "a window_ms and a hop_ms of a few samples at 16000 Hz"),
        ({"rate": 10}, "greater than or equal to 1000"),
        ({"keep": "middle"}, "'centre' or 'start'"),
    ],
)
def test_options_that_make_no_spectrogram_are_one_sentence(workspace, options, expected):
    Path("params.yaml").write_text(
        f"task: audio\narchitecture: cnn\ndata: {{path: sounds}}\nencode: {options}\n"
    )
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value).startswith("params.yaml: encode")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_clip_is_drawn_as_waveform_and_spectrogram(prompt):
    from matplotlib.figure import Figure

    axes = Figure(figsize=audio.CELL).subplots()
    encoder().draw(axes, encoder().encode(stored(prompt)))
    assert len(axes.images) == 1
    assert len(axes.collections) == 1


# ── Bad files ──────────────────────────────────────────────────────────────────────────────────────────


def with_header(raw: bytes, offset: int, kind: str, value: int) -> bytes:
    """A wav file with another number in its header."""
    return raw[:offset] + struct.pack(kind, value) + raw[offset + struct.calcsize(kind) :]


SHORT = stored(np.arange(100, dtype=np.int16))
BAD = {
    "text": (b"this is not audio", "not audio in a known format"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not audio in a known format"),
    "empty": (b"", "empty"),
    "nothing": (None, "expected audio, found None"),
    "a header alone": (stored(np.zeros(0, np.int16)), "a header without samples"),
    "NaN": (
        stored(np.array([0.1, np.nan]), subtype="FLOAT"),
        "samples that are no numbers (NaN) or infinite",
    ),
    "infinite": (stored(np.array([np.inf]), subtype="DOUBLE"), "samples that are no numbers (NaN)"),
    "another unit": (
        stored(np.array([12000.0]), subtype="FLOAT"),
        "samples as large as 12000, expected −1 to 1",
    ),
    "absurdly slow": (with_header(SHORT, 24, "<I", 3), "3 samples a second, expected 100 to 1,000,000"),
    "absurdly fast": (with_header(SHORT, 24, "<I", 2_000_000_000), "2,000,000,000 samples a second"),
}


@pytest.mark.parametrize(("raw", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_audio_is_refused_with_a_reason(raw, reason):
    with pytest.raises(BadExampleError) as error:
        audio.digest(raw)
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(("kind", "subtype"), [*LOSSLESS, *LOSSY, ("AIFF", "PCM_16")])
def test_a_truncated_recording_is_refused_with_a_reason(prompt, kind, subtype):
    raw = stored(prompt, kind=kind, subtype=subtype)
    for share in (0.02, 0.1, 0.5, 0.9, 0.99):
        with pytest.raises(BadExampleError) as error:
            audio.digest(raw[: int(len(raw) * share)])
        reasons = ("cut short after ", "damaged audio: ", "not audio in a known format", "a header without")
        assert str(error.value).startswith(reasons)


def test_a_wav_that_was_written_to_a_pipe_is_whole(prompt):
    raw = stored(prompt)
    unknown = with_header(with_header(raw, 4, "<I", 0xFFFFFFFF), 40, "<I", 0xFFFFFFFF)
    assert audio.digest(unknown) == audio.digest(raw)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(prompt):
    raw = stored(prompt, kind="FLAC")
    frames = (1 << 36) - 1  # the last 36 of the 64 bits that hold rate, channels, depth and length
    (packed,) = struct.unpack(">Q", raw[18:26])
    bomb = raw[:18] + struct.pack(">Q", packed | frames) + raw[26:]
    with pytest.raises(BadExampleError, match="68,719,476,735 samples of 1 channels, expected at most"):
        audio.digest(bomb)


def test_damaged_bytes_never_raise_anything_else(prompt):
    draw = np.random.default_rng(0)
    refused = 0
    for kind, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")):
        whole = stored(prompt, kind=kind, subtype=subtype)
        for _ in range(60):
            damaged = bytearray(whole)
            for position in draw.integers(min(len(whole), 4000), size=4):
                damaged[position] = draw.integers(256)
            try:
                audio.digest(bytes(damaged))
                encoder().encode(bytes(damaged))
            except BadExampleError:
                refused += 1
    assert refused > 60
