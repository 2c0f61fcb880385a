"""Commits what a training on a runner changed, to the branch of its merge request or as a patch.

in:   dvc.lock and the small files of src/models/, as `dvc repro` left them; CI_* variables of GitLab
out:  build/train/ (dvc.lock and training.patch), and a commit on the branch, if GITLAB_TOKEN may push

The commit's message says `Trained-by:`, and .gitlab-ci.yml offers no training for such a commit, so one
training never starts another. What the commit holds is verified and judged by the pipeline that it starts.

python -m src.train.commit
"""

import os
import shutil
import subprocess
from pathlib import Path

from src import command
from src.errors import UserError

RESULTS = ("dvc.lock", "src/models")  # what of it is DVC's is ignored by git
FOLDER = Path("build/train")
PATCH = FOLDER / "training.patch"


def main() -> None:
    """Commits, and pushes or says how to apply the patch."""
    command.parser(__doc__).parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shutil.copy("dvc.lock", FOLDER)
    if not commit():
        print("dvc.lock is as it was: there is nothing to commit")
        return
    PATCH.write_text(git("format-patch", "-1", "--stdout"))
    branch = os.environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
    reason = push(branch) if branch else "this is no pipeline of a merge request"
    if reason is None:
        print(f"{branch}: has the training's dvc.lock now; its pipeline judges it")
        return
    print(f"not pushed: {reason}")
    print(f"to apply it, take {PATCH} from this job's artifacts and run on your branch:")
    print(f"    git am {PATCH.name} && git push")


def commit() -> bool:
    """Commits the results in the name of whoever started the job; False if nothing has changed."""
    git("add", "--", *RESULTS)
    if not git("diff", "--cached", "--name-only"):
        return False
    name = os.environ.get("GITLAB_USER_NAME", "Sluice")
    email = os.environ.get("GITLAB_USER_EMAIL", "sluice@localhost")
    job = os.environ.get("CI_JOB_URL", "make train")
    identity = ("-c", f"user.name={name}", "-c", f"user.email={email}")
    git(*identity, "commit", "--quiet", "--message", f"Record a training\n\nTrained-by: {job}")
    return True


def push(branch: str) -> str | None:
    """Pushes the commit to a branch of the project, and returns why that failed, or None.

    The token reaches git through its environment alone: no log and no list of processes shows it.
    """
    if not os.environ.get("GITLAB_TOKEN"):
        return "there is no GITLAB_TOKEN"
    helper = '!echo username=oauth2; echo "password=$GITLAB_TOKEN"; :'
    credentials = ("-c", "credential.helper=", "-c", f"credential.helper={helper}")
    url = f"{os.environ['CI_PROJECT_URL']}.git"
    try:
        git(*credentials, "push", "--quiet", url, f"HEAD:refs/heads/{branch}")
    except UserError as error:
        return str(error)
    return None


def git(*arguments: str) -> str:
    """Runs git and returns what it prints.

    Raises:
        UserError: If git fails, with its own words.
    """
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment)
    if result.returncode:
        verb = next(word for word in arguments if word in ("add", "diff", "commit", "push", "format-patch"))
        raise UserError(f"git {verb}: {' '.join(result.stderr.split())}")
    return result.stdout


if __name__ == "__main__":
    command.run(main)
