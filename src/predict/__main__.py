"""Predicts with a model: no TensorFlow, no params.yaml, only what the model's own kind of data needs.

python -m src.predict shoe.png photos/ 'more/*.jpg'    files, folders, globs
python -m src.predict table.csv                        rows, or a column with inputs or paths of them
python -m src.predict --text 'What a film!'            sentences
cat reviews.txt | python -m src.predict -              a sentence, or a row as JSON, in each line; or one file
python -m src.predict info                             the model's card, metrics and verdict
python -m src.predict verify                           every checksum; a few test examples predicted again
python -m src.predict verify --key sluice.pub          and the signature: every byte, by whoever has that key
python -m src.predict extract FOLDER                   unpacks sluice.pyz
python -m src.predict serve                            a page to try it, and predictions over HTTP

sluice.pyz is this program and a model in one file: `python sluice.pyz` stands for `python -m src.predict`.
On a terminal it writes a table, elsewhere JSON lines. An input that cannot be read is named on standard error
and the others are predicted; the exit code is then 1. A file that is called info: ./info.
"""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import command, options
from src.errors import UserError
from src.predict.needs import missing

if TYPE_CHECKING:
    from src.predict.source import Source


def main() -> None:
    """Runs the command."""
    arguments = parse(sys.argv[1:])
    try:
        run(arguments)
    except ModuleNotFoundError as error:
        raise UserError(missing(arguments.model, error)) from None
    except BrokenPipeError:  # whoever reads has had enough
        sys.stderr.close()
        sys.exit(0)


def parse(words: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.prog = home().name if home().is_file() else "python -m src.predict"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a file, a folder, a glob, a table, -")
    parser.add_argument("--text", action="append", default=[], help="a sentence; may be given more than once")
    parser.add_argument("--model", type=Path, default=home(), help=f"a folder or a .pyz (default: {home()})")
    parser.add_argument("--column", help="of a table, that holds inputs (default: the usual names)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="write JSON lines")
    form.add_argument("--csv", action="store_const", dest="form", const="csv", help="write CSV")
    form.add_argument("--table", action="store_const", dest="form", const="table", help="write a table")
    parser.add_argument("--top", type=positive, metavar="K", help="name the K most probable classes")
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="inputs at once (default: 64)"
    )
    parser.add_argument(
        "--threads", type=positive, default=0, metavar="N", help="at most (default: one a core)"
    )
    parser.add_argument("--keras", action="store_true", help="let Keras compute, which must be installed")
    parser.add_argument("--key", type=Path, metavar="FILE", help="verify: the public key of who signed")
    server = parser.add_argument_group("serve")
    server.add_argument("--host", default="127.0.0.1", help="to listen on (default: this machine alone)")
    server.add_argument(
        "--port", type=port, default=8000, metavar="N", help="likewise; 0: any (default: 8000)"
    )
    server.add_argument(
        "--limit", type=positive, default=32, metavar="MB", help="of a request's size (default: 32)"
    )
    server.add_argument(
        "--timeout", type=positive, default=30, metavar="S", help="to read, to predict (default: 30)"
    )
    arguments = parser.parse_args(words)
    if not arguments.inputs and not arguments.text:
        parser.error("expected an input; --help shows which there are")
    if arguments.key and arguments.inputs != ["verify"]:
        parser.error("--key: is for verify alone")
    return arguments


def positive(text: str) -> int:
    """Returns a whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 up")
    return int(text)


def port(text: str) -> int:
    """Returns a whole number that a port can have."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number up to 65535")
    return int(text)


def home() -> Path:
    """Returns where the model of this code lies: in the archive or folder it runs from, or src/models."""
    root = Path(__file__).parents[2]
    return root if root.is_file() or (root / "inference.json").is_file() else Path("src/models")


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    from src.predict.source import Source

    source = Source(arguments.model)
    words = arguments.inputs
    if words == ["info"]:
        from src.predict import info

        print(info.show(source))
    elif words == ["verify"]:
        from src.predict import verify

        print(verify.verify(source, arguments.threads, arguments.key))
    elif words[:1] == ["extract"]:
        from src.predict import extract

        if len(words) != 2:
            raise UserError("extract: expected a folder to unpack to")
        print(extract.extract(source, Path(words[1])))
    elif words == ["serve"]:
        from src.predict.web import reading, server

        limits = reading.Limits(arguments.limit * 1_000_000, arguments.timeout)
        server.serve(source, arguments.host, arguments.port, limits, arguments.threads)
    elif not predict(source, arguments):
        sys.exit(1)


def predict(source: "Source", arguments: argparse.Namespace) -> bool:
    """Writes a prediction for each input; returns whether all could be read."""
    from src.predict import inputs, output
    from src.predict.predictor import Predictor

    predictor = Predictor(source, arguments.threads, arguments.keras)
    if arguments.text and predictor.task.RAW != "text":
        raise UserError(f"--text: this model predicts from {predictor.task.RAW}s, not from sentences")
    items = [*inputs.sentences(arguments.text)]
    found = inputs.Reader(predictor.task, arguments.column or predictor.inference["data"].get("input"))
    form = arguments.form or ("table" if sys.stdout.isatty() else "json")
    top = arguments.top if form != "table" else max(arguments.top or 1, 1)
    writers = {
        "json": lambda: output.Json(sys.stdout),
        "csv": lambda: output.Csv(sys.stdout, predictor, top),
        "table": lambda: output.Table(sys.stdout, predictor, arguments.top),
    }
    writer: Any = writers[form]()
    if hasattr(sys.stdout, "reconfigure"):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    progress = output.Progress(sys.stderr)
    bad = 0
    for batch in predictor.stream(chain(items, found.find(arguments.inputs)), arguments.batch_size):
        answers = []
        for item, result in batch:
            if isinstance(result, str):
                bad += 1
                progress.clear()
                print(f"{item.name}: {result}", file=sys.stderr)
            else:
                answers.append({"input": item.name, **predictor.answer(result, arguments.top)})
        writer.write(answers)
        sys.stdout.flush()
        progress.add(len(batch))
    progress.clear()
    return not bad


if __name__ == "__main__":
    options.trust()
    command.run(main)
