"""Checks that a model is what was published and predicts what it predicted then."""

from pathlib import Path

import numpy as np

from src import golden, signature
from src.checksums import SUMS
from src.errors import BadExampleError, UserError
from src.predict.predictor import Predictor
from src.predict.source import ARCHIVE, Source


def verify(source: Source, threads: int = 0, key: Path | None = None) -> str:
    """Compares all bytes with the signature, every file with its checksum; predicts golden examples again.

    Args:
        source: The model.
        threads: That may compute at once.
        key: The public key that the model must be signed by; None: any or none.

    Returns:
        What was found to be right, in a sentence.

    Raises:
        UserError: If anything differs.
    """
    signed = _check_signature(source, key)
    if source.archive is not None and source.sums() is None:
        raise UserError(f"{source.path}: {SUMS} is missing; expected a whole {ARCHIVE}")
    problems = list(source.differences()) if source.sums() is not None else []
    if problems:
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(f"{source.path}: {problems[0]}{more}")
    files = f"{len(source.names()) - 1} files are as SHA256SUMS says"
    if source.sums() is None:
        files = "no SHA256SUMS to compare files with"
    if not source.has(golden.NAME):
        return f"{source.path}: {signed}; {files}; no {golden.NAME} to predict again"
    count, worst = replay(source, threads)
    return f"{source.path}: {signed}; {files}; {count} golden examples predict the same (to {worst:.1e})"


def _check_signature(source: Source, key: Path | None) -> str:
    """Returns what is known of the signature, in a few words."""
    if key is None:
        return "signed, by whom --key FILE tells" if signature.is_signed(source.path) else "not signed"
    if source.archive is not None:
        signature.verify_archive(source.path, key)
    else:
        signature.verify_bundle(source.path, key)
    return f"signed by {key}"


def replay(source: Source, threads: int = 0) -> tuple[int, float]:
    """Predicts the golden examples from their raw inputs.

    Returns:
        How many there are, and by how much the outputs differ at most (`golden.difference`).

    Raises:
        UserError: If one differs by more than `golden.TOLERANCE`.
    """
    content = source.json(golden.NAME)
    predictor = Predictor(source, threads)
    worst = 0.0
    for example in content["examples"]:
        try:
            found = predictor.predict([golden.unpack(example["input"])])[0]
        except BadExampleError as error:
            raise UserError(f"{source.path}: golden example {example['id']}: {error}") from None
        expected = np.array(example["output"], np.float32)
        if found.shape != expected.shape:
            raise UserError(f"{source.path}: found {found.shape} outputs, expected {expected.shape}")
        apart = float(golden.difference(expected, found, content["unit"]).max())
        if apart > golden.TOLERANCE:
            raise UserError(
                f"{source.path}: golden example {example['id']} is predicted otherwise than when the model "
                f"was published: by {apart:.2g}, expected {golden.TOLERANCE} at most"
            )
        worst = max(worst, apart)
    return len(content["examples"]), worst
