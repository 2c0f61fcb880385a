"""Trains what a job file in a bucket asks for, with the ordinary stages, and publishes the result there.

in:   jobs/<id>.json, the dataset that it names
out:  jobs/<id>.status.json (queued, running with epoch and metrics, failed with the reason, done),
      jobs/<id>.log, models/<id>/… and the entry <id> in inference.json (src/s3/entries.py)

A job file; what `params` leaves out, the recipe says:

    {
      "id": "fashion-7",                           the file's name without .json
      "task": "image",                             of src/tasks
      "dataset": "s3://team/data/photos.zip",      or a key of the same bucket; a prefix ends with /
      "sha256": "9f86d081…",                       of that file; may be left out
      "recipe": "fashion",                         of recipes/; left out: the first one of the task
      "params": {"fit": {"epochs": 20}}            what differs from the recipe
    }

Any number of workers may watch the same jobs: each is run by one. While it runs, its checkpoint lies beside
it; the job of a worker that died is taken over by the next one and ends with the same model. SIGTERM or
Ctrl-C has the training write a checkpoint and leaves the job to others; a second one ends at once. A job that
is over runs again when its file is another one, or when its status is deleted.

Credentials come as for all AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, the machine's
role. templates/ has service files for systemd and PM2.

python -m src.train.job s3://bucket/jobs/ID.json       # that job; exit status 1 where it fails
python -m src.train.job --watch s3://bucket/jobs/      # one after the other, until it is ended
"""

import argparse

from src import command
from src.jobs.stages import Stopped, stoppable
from src.jobs.worker import Worker
from src.s3.bucket import Bucket, Location


def main() -> None:
    """Runs the command."""
    arguments = parse()
    place = Location.parse(arguments.url)
    bucket = Bucket(place.bucket, arguments.endpoint_url)
    worker = Worker(bucket, arguments.lease, arguments.attempts)
    try:
        with stoppable():
            if arguments.watch:
                worker.watch(place.key, arguments.until_empty)
            else:
                worker.run_one(place)
                print(f"{place}: done")
    except Stopped:
        print("ended as asked; the job, if there was one, is left to other workers")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("url", help="of the job file; with --watch of the folder of job files")
    parser.add_argument("--watch", action="store_true", help="run one job after the other")
    parser.add_argument("--until-empty", action="store_true", help="with --watch: end when all jobs are over")
    parser.add_argument("--endpoint-url", help="of the store (default: AWS_ENDPOINT_URL, else AWS)")
    parser.add_argument(
        "--lease",
        type=_seconds,
        default=60.0,
        help="seconds after which a silent worker is dead (default: 60)",
    )
    parser.add_argument(
        "--attempts", type=int, default=20, help="workers that may die with a job (default: 20)"
    )
    arguments = parser.parse_args()
    wanted = "/" if arguments.watch else ".json"
    if not arguments.url.endswith(wanted):
        parser.error(f"found {arguments.url!r}, expected an address that ends with {wanted}")
    return arguments


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds from 1 up")
    return seconds


if __name__ == "__main__":
    command.run(main)
