"""Makes datasets/speech of the Debian packages asterisk-core-sounds-{en,es,fr,it,ru}-wav.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-wav
    for package in asterisk-core-sounds-*.deb; do dpkg -x $package FOLDER; done
    python -m datasets.make_speech datasets/speech --sounds FOLDER/usr/share/asterisk/sounds

Takes the same short prompts in every language; a prompt stands in one split in all of them.
"""

import argparse
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
SHORTEST, LONGEST = 0.4, 1.5  # seconds
PROMPTS = {"train": 62, "validation": 10, "test": 40}
KINDS = ("digits", "letters", "phonetic")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    parser.add_argument("--sounds", type=Path, required=True, help="…/usr/share/asterisk/sounds")
    arguments = parser.parse_args()
    voices = {language: next(arguments.sounds.glob(f"{language}_*")) for language in LANGUAGES}
    prompts = choose(voices)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, count in PROMPTS.items():
        chosen, prompts = prompts[:count], prompts[count:]
        rows = [
            row(voice, language, prompt) for prompt in sorted(chosen) for language, voice in voices.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows), arguments.output / f"{split}.parquet", compression="none")


def choose(voices: dict[str, Path]) -> list[str]:
    """Returns the prompts that are short in every language, in the order of a hash of their names."""
    names = [{str(path.relative_to(voice)) for path in voice.rglob("*.wav")} for voice in voices.values()]
    spoken = {name for name in set.intersection(*names) if not name.startswith(("silence/", "beep"))}
    short = [
        name
        for name in spoken
        if all(SHORTEST <= soundfile.info(voice / name).duration <= LONGEST for voice in voices.values())
    ]
    return sorted(short, key=lambda name: hashlib.md5(name.encode()).hexdigest())


def row(voice: Path, language: str, prompt: str) -> dict[str, object]:
    """Returns one example: FLAC in the Hugging Face convention, and what is known of it."""
    samples, rate = soundfile.read(voice / prompt, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", compression_level=1.0)
    name = prompt.removesuffix(".wav")
    kind = name.split("/")[0]
    return {
        "audio": {"bytes": buffer.getvalue(), "path": f"{voice.name}/{name}.flac"},
        "label": LANGUAGES[language],
        "voice": voice.name.split("_")[-1],
        "prompt": name,
        "kind": kind if kind in KINDS else "words",
    }


if __name__ == "__main__":
    main()
