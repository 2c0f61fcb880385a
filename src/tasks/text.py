"""Sentences: words or byte pairs as whole numbers, padded to one length; 0 is padding, 1 an unknown token."""

import hashlib
import json
import os
import textwrap
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from src.errors import BadExampleError
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.params import Data

SUFFIXES = (".txt",)
COLUMNS = (
    "text", "sentence", "review", "snippet", "comment", "message", "document", "content", "body", "tweet",
    "utterance", "question", "title",
)  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]"]
# Words, single marks, and English clitics apart from their verbs ("do n't", "it 's"), as in the Penn Treebank
# and so in the word lists of GloVe and word2vec.
WORDS = r"(?i)\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"
COVERED = 99  # percent of the training sentences that are not cut where `length` is not given

RAW = "text"
CELL = (6.0, 0.45)
LINE, LINES = 88, 3  # characters of a line and lines that go into a cell


class Options(Section):
    """`encode:` the tokens that the network sees."""

    tokenizer: Literal["word", "bpe"] = "word"
    vocabulary: Annotated[int, Field(ge=3)] = 10000  # the most tokens, padding and unknown included
    least: Annotated[int, Field(ge=1)] = 2  # how often a word, or a pair to merge, must occur
    lowercase: bool = True
    length: Annotated[int, Field(ge=1)] | None = None  # tokens; None: 99 % of the training sentences fit


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads a table with a column of sentences, class folders of .txt files, or an archive of them."""
    from src import dataset

    return dataset.read(data, spool, SUFFIXES, COLUMNS, paths=False)


def digest(raw: Any) -> str:
    """Returns a hash of the text that does not depend on case, white space or the way accents are stored.

    A sentence that was copied from one split into another is a leak even if it was typed in capitals.
    """
    words = unicodedata.normalize("NFKC", _text(raw)).casefold().split()
    return hashlib.blake2b(" ".join(words).encode(), digest_size=16).hexdigest()


class Encoder:
    """Encodes a sentence as (length,) int32 token numbers: cut at its end, or padded there with 0."""

    dtype = "int32"
    layers: Layers = []

    def __init__(self, options: Options, tokenizer: Tokenizer) -> None:
        self.options = options
        self.tokenizer = tokenizer
        tokens = tokenizer.get_vocab()
        self.vocabulary = sorted(tokens, key=tokens.__getitem__)
        self.shape = (options.length,)

    @classmethod
    def learn(cls, raws: Iterable[Any], options: Options) -> "Encoder":
        """Learns the vocabulary, and the length unless it is given."""
        # Counting in threads gives the same counts; said aloud, forks of this process are not warned about.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        tokenizer = _train(map(_text, raws), options)
        length = options.length
        if length is None:
            lengths = [len(tokenizer.encode(_text(raw)).ids) for raw in raws]
            length = int(np.percentile(lengths, COVERED, method="higher"))
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=0, pad_token=SPECIAL[0])
        return cls(options.model_copy(update={"length": length}), tokenizer)

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Returns the encoder that `save` wrote."""
        options = Options.model_validate(read_json(folder / "encoder.json"))
        return cls(options, Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8")))

    def save(self, folder: Path) -> None:
        """Writes the options, and the tokenizer in Hugging Face's format, which encodes the same."""
        write_json(folder / "encoder.json", self.options.model_dump())
        self.tokenizer.save(str(folder / "tokenizer.json"))

    def encode(self, raw: Any) -> np.ndarray:
        """Cuts a sentence into tokens; any number of threads may do so at once.

        Args:
            raw: Text, or the bytes of a text file in UTF-8.

        Returns:
            (length,) int32.

        Raises:
            BadExampleError: If it is no such text, or blank.
        """
        return np.array(self.tokenizer.encode(_text(raw)).ids, np.int32)

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Writes the sentence, as far as it fits."""
        lines = textwrap.wrap(self._sentence(array), LINE, max_lines=LINES, placeholder=" …")
        axes.text(0.5, 0.95, "\n".join(lines), fontsize=8, ha="center", va="top", parse_math=False)

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns the sentence as the network reads it: unknown words are [UNK]."""
        return {"text": self._sentence(array)}

    def _sentence(self, array: np.ndarray) -> str:
        return self.tokenizer.decode(array[array != 0].tolist(), skip_special_tokens=False)


def _train(texts: Iterable[str], options: Options) -> Tokenizer:
    """Returns a tokenizer whose vocabulary is learned; the order of the texts is of no matter."""
    given: dict[str, Any] = {
        "vocab_size": options.vocabulary,
        "min_frequency": options.least,
        "special_tokens": SPECIAL,
    }
    if options.tokenizer == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[1]))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
        trainer: Any = trainers.WordLevelTrainer(**given, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[1]))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(**given, show_progress=False)
    folded = [normalizers.Lowercase()] if options.lowercase else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("’", "'"), *folded])
    tokenizer.train_from_iterator(texts, trainer)
    # Without this, a text that spells out [PAD] or [UNK] would be taken for these tokens.
    content = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps({**content, "added_tokens": []}))


def _text(raw: Any) -> str:
    """Returns text with something in it."""
    if raw is None or raw != raw or raw in (b"", ""):  # an empty cell of a table is NaN, which equals nothing
        raise BadExampleError("empty")
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        if not isinstance(text, str):
            raise BadExampleError(f"expected text, found {raw!r}")
        text.encode()  # half of a surrogate pair is no text either
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise BadExampleError(
            f"expected text in UTF-8, found at position {error.start}: {error.reason}"
        ) from None
    if not text.strip():
        raise BadExampleError("blank: nothing but white space")
    return text
