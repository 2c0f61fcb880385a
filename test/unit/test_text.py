"""Sentences become token numbers by a vocabulary of the training split; what is no sentence is refused."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tokenizers import Tokenizer

from src.dataset import content
from src.errors import BadExampleError
from src.files import sha256
from src.params import Data
from src.tasks import text
from src.tasks.text import Encoder, Options


@pytest.fixture(scope="module")
def reviews(root) -> list[str]:
    """The first 2,000 snippets of datasets/reviews."""
    return pd.read_parquet(root / "datasets/reviews/snippets.parquet")["text"][:2000].tolist()


KINDS = [Options(), Options(tokenizer="bpe", vocabulary=1000)]
kinds = pytest.mark.parametrize("options", KINDS, ids=["word", "bpe"])


def tokens(encoder: Encoder, sentence: str) -> list[str]:
    """What the network sees of a sentence, padding left out."""
    return [encoder.vocabulary[number] for number in encoder.encode(sentence) if number]


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("column", ["text", "sentence", "review", "snippet", "comment", "message"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_has_a_column_of_sentences_and_one_of_labels(workspace, column, suffix):
    table = pd.DataFrame(
        {column: ["Fun, and “smart”", "dull.txt"], "label": ["good", "bad"], "stars": [4, 1]}
    )
    if suffix == "csv":
        table.to_csv("data.csv", index=False)
    else:
        table.to_parquet("data.parquet")
    found = text.read(Data(path=f"data.{suffix}"), workspace)
    assert found["input"].tolist() == ["Fun, and “smart”", "dull.txt"]  # text, not the name of a file
    assert found["label"].tolist() == ["good", "bad"]
    assert found["stars"].tolist() == [4, 1]


def test_class_folders_and_archives_of_them_hold_text_files(workspace):
    import shutil

    for name in ("good/1.txt", "good/2.txt", "bad/1.txt", "notes.md"):
        Path("films", name).parent.mkdir(parents=True, exist_ok=True)
        Path("films", name).write_text(f"The film of {name} déjà vu")
    shutil.make_archive("packed", "zip", "films")
    for path in ("films", "packed.zip"):
        found = text.read(Data(path=path), workspace)
        assert found["label"].tolist() == ["bad", "good", "good"]
        assert found.attrs["ignored"] == ["notes.md"]
        encoder = Encoder.learn([content(value) for value in found["input"]], Options(least=1))
        assert " ".join(tokens(encoder, content(found["input"][0]))) == "the film of bad / 1 . txt déjà vu"


# ── Vocabulary ─────────────────────────────────────────────────────────────────────────────────────────


@kinds
def test_padding_is_token_0_and_unknown_token_1(reviews, options):
    encoder = Encoder.learn(reviews, options)
    assert encoder.vocabulary[:2] == ["[PAD]", "[UNK]"]
    assert len(set(encoder.vocabulary)) == len(encoder.vocabulary) <= options.vocabulary
    array = encoder.encode("film 電影")
    assert array[0] > 1
    assert 1 in array
    assert array[-1] == 0
    assert sorted(array == 0) == list(array == 0)  # padding stands at the end


@kinds
def test_frequent_tokens_come_first_and_the_vocabulary_ends_where_it_is_told_to(reviews, options):
    small = Encoder.learn(reviews, options.model_copy(update={"vocabulary": 120}))
    assert len(small.vocabulary) == 120
    if options.tokenizer == "word":
        assert small.vocabulary == Encoder.learn(reviews, options).vocabulary[:120]
        assert {"the", ",", ".", "and"} <= set(small.vocabulary[:10])


def test_rare_words_are_left_out():
    sentences = ["a rare film", "a film", "a good film", "good"]
    known = [set(Encoder.learn(sentences, Options(least=least)).vocabulary[2:]) for least in (1, 2, 3)]
    assert known == [{"a", "rare", "film", "good"}, {"a", "film", "good"}, {"a", "film"}]


@kinds
def test_the_vocabulary_is_the_same_in_every_process_and_order(reviews, options, root, tmp_path):
    program = """
import sys, json
import pandas as pd
from pathlib import Path
from src.tasks.text import Encoder, Options
texts = pd.read_parquet("datasets/reviews/snippets.parquet")["text"][:2000]
options = Options.model_validate_json(sys.argv[1])
Path(sys.argv[2]).mkdir()
Encoder.learn(texts[::int(sys.argv[3])].tolist(), options).save(Path(sys.argv[2]))
"""
    for number, step in enumerate(("1", "1", "-1")):
        arguments = [options.model_dump_json(), str(tmp_path / str(number)), step]
        subprocess.run([sys.executable, "-c", program, *arguments], cwd=root, check=True)
    first, *others = [sha256(tmp_path / name / "tokenizer.json") for name in "012"]
    assert others == [first, first]


def test_words_are_cut_as_the_lists_of_pretrained_vectors_have_them(reviews):
    encoder = Encoder.learn([*reviews, "isn’t can't won't she'll"], Options(least=1))
    seen = tokens(encoder, "It's good, isn’t it? I CAN'T...")
    assert " ".join(seen) == "it 's good , is n't it ? i ca n't . . ."


@kinds
def test_case_is_kept_when_that_is_asked_for(options):
    sentences = ["The Rock rocks", "the rock rocks"] * 5
    folded = Encoder.learn(sentences, options)
    kept = Encoder.learn(sentences, options.model_copy(update={"lowercase": False}))
    assert np.array_equal(folded.encode(sentences[0]), folded.encode(sentences[1]))
    assert not np.array_equal(kept.encode(sentences[0]), kept.encode(sentences[1]))


@kinds
def test_one_way_to_store_an_accent_is_as_good_as_another(options):
    encoder = Encoder.learn(["un café déjà vu"] * 3, options)
    assert np.array_equal(encoder.encode("café"), encoder.encode("cafe\u0301"))
    assert 1 not in encoder.encode("cafe\u0301")


@kinds
def test_a_sentence_cannot_name_the_special_tokens(reviews, options):
    encoder = Encoder.learn([*reviews, "[PAD] [UNK] [pad] [unk]"], options)
    array = encoder.encode("[PAD] [UNK]")
    assert set(array[array.argmin() :]) == {0}  # nothing behind the first 0 but padding
    assert array.argmin() >= 2


# ── Encoding ───────────────────────────────────────────────────────────────────────────────────────────


@kinds
def test_the_learned_length_fits_99_of_100_training_sentences(reviews, options):
    encoder = Encoder.learn(reviews, options)
    (length,) = encoder.shape
    lengths = [len(tokens(encoder, sentence)) for sentence in reviews]
    assert max(lengths) == length  # the longer ones are cut
    longer = Encoder.learn(reviews, options.model_copy(update={"length": 10 * length}))
    full = np.array([len(tokens(longer, sentence)) for sentence in reviews])
    assert (full <= length).mean() >= 0.99 > (full <= length - 1).mean()


def test_a_given_length_cuts_and_pads_at_the_end():
    encoder = Encoder.learn(["a b c d e"], Options(least=1, length=3))
    assert encoder.shape == (3,)
    assert tokens(encoder, "e d c b a") == ["e", "d", "c"]
    assert encoder.encode("b").tolist() == [encoder.vocabulary.index("b"), 0, 0]


@kinds
def test_text_files_are_read_as_the_same_text(reviews, options):
    encoder = Encoder.learn(reviews, options)
    for sentence in reviews[:50]:
        expected = encoder.encode(sentence)
        assert (expected.shape, expected.dtype) == (encoder.shape, np.int32)
        assert np.array_equal(encoder.encode(sentence.encode()), expected)
        assert np.array_equal(encoder.encode(sentence.encode("utf-8-sig")), expected)


@kinds
def test_many_threads_encode_as_one_does(reviews, options):
    encoder = Encoder.learn(reviews, options)
    alone = [encoder.encode(sentence) for sentence in reviews]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(encoder.encode, reviews))
    assert np.array_equal(alone, together)


@kinds
def test_a_saved_encoder_comes_back_and_its_tokenizer_encodes_without_it(reviews, options, tmp_path):
    first = Encoder.learn(reviews, options)
    first.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "tokenizer.json"]
    assert json.loads((tmp_path / "encoder.json").read_text())["length"] == first.shape[0]
    second = Encoder.load(tmp_path)
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (second.shape, second.vocabulary) == (first.shape, first.vocabulary)
    for sentence in [*reviews[:50], "[PAD] 電影 " + "long " * 100]:
        expected = first.encode(sentence)
        assert np.array_equal(second.encode(sentence), expected)
        assert alone.encode(sentence).ids == expected.tolist()


# ── Showing ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sentence_can_be_read_again_and_what_was_unknown_is_seen(reviews):
    words = Encoder.learn(reviews, KINDS[0])
    assert words.describe(words.encode("A funny xyzzy film!")) == {"text": "a funny [UNK] film !"}
    pairs = Encoder.learn(reviews, KINDS[1])
    assert pairs.describe(pairs.encode("A funny 電影 film!")) == {"text": "a funny [UNK][UNK] film!"}


@pytest.mark.parametrize("sentence", ["Five $ for $ nothing_at^all", "word " * 500])
def test_a_sentence_is_drawn_as_it_stands_within_its_cell(sentence):
    encoder = Encoder.learn([sentence], Options(least=1, length=500))
    figure = Figure(figsize=text.CELL)
    axes = figure.add_axes((0, 0, 1, 1))
    encoder.draw(axes, encoder.encode(sentence))
    (drawn,) = axes.texts
    assert drawn.get_text().startswith("word word" if "word" in sentence else "five $ for $ nothing_at ^ all")
    assert drawn.get_text().endswith(" …") == ("word" in sentence)
    box = drawn.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0)
    assert figure.bbox.contains(box.x1, box.y1)


# ── What is told apart, and what is refused ────────────────────────────────────────────────────────────


def test_a_copy_in_capitals_or_with_other_spaces_is_the_same_sentence():
    same = ["A fine café.", "A FINE CAFÉ.", "  a fine\u00a0\n cafe\u0301. ", b"A fine caf\xc3\xa9."]
    other = ["A fine café!", "A fine cafe.", "Afine café.", "café. A fine"]
    assert len({text.digest(raw) for raw in same}) == 1
    assert len({text.digest(raw) for raw in [same[0], *other]}) == 5


BAD = {
    "nothing": (None, "empty"),
    "an empty cell": (float("nan"), "empty"),
    "an empty file": (b"", "empty"),
    "an empty sentence": ("", "empty"),
    "blanks": (" \t\u00a0\n", "blank: nothing but white space"),
    "a blank file": (b"\xef\xbb\xbf \r\n", "blank: nothing but white space"),
    "a number": (7, "expected text, found 7"),
    "a list": (["a"], "expected text, found ['a']"),
    "Latin-1": ("un café".encode("latin-1"), "expected text in UTF-8, found at position 6: unexpected end"),
    "UTF-16": ("film".encode("utf-16"), "expected text in UTF-8, found at position 0: invalid start byte"),
    "half a character": ("\ud83d film", "expected text in UTF-8, found at position 0: surrogates not"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_sentence_is_refused_with_a_reason(raw, reason):
    encoder = Encoder.learn(["a film"], Options(least=1))
    for function in (text.digest, encoder.encode):
        with pytest.raises(BadExampleError) as error:
            function(raw)
        assert str(error.value).startswith(reason)
