"""Posts the gate's verdict as one note on the merge request, and updates that note ever after.

in:   build/gate/gate.md and the pictures beside it; GITLAB_TOKEN and CI's variables
out:  a note on the merge request

Whatever GitLab answers, this ends well: the verdict is the gate's alone, and the job's artifact shows it too.

python -m src.publish.note
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import command
from src.errors import UserError
from src.gitlab_api import ApiError, Server

if TYPE_CHECKING:
    import gitlab

GATE = Path("build/gate")
MARKER = "<!-- the verdict of the gate: this note is updated in place -->"
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)/]+\.png)\)")


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    try:
        print(post(os.environ))
    except ApiError as error:
        print(f"no note: {error}; the verdict stands, see {GATE / 'gate.md'} in the job's artifacts")


def post(environ: Mapping[str, str]) -> str:
    """Creates or updates the note.

    Returns:
        What was done, or why nothing was, in a sentence.

    Raises:
        ApiError: If GitLab refuses or cannot be reached.
        UserError: If there is no verdict.
    """
    text = read()
    server = Server.find(environ)
    merge_request = environ.get("CI_MERGE_REQUEST_IID")
    if server is None or not merge_request:
        missing = "CI_MERGE_REQUEST_IID" if server else "GITLAB_TOKEN in GitLab CI"
        return f"no note: {missing} is not set; the verdict is in {GATE / 'gate.md'}"
    with server.connect() as client:
        project = client.projects.get(environ.get("CI_MERGE_REQUEST_PROJECT_ID", server.project), lazy=True)
        notes = project.mergerequests.get(merge_request, lazy=True).notes
        author = log_in(server, client)
        body = f"{MARKER}\n{link_pictures(text, server, project)}"
        done = server.ask("write the note", lambda: write(notes, author, body))
    return f"{done} on merge request !{merge_request}"


def read() -> str:
    """Reads the verdict as Markdown.

    Raises:
        UserError: If the gate has not run.
    """
    try:
        return (GATE / "gate.md").read_text()
    except FileNotFoundError:
        raise UserError(f"{GATE / 'gate.md'}: not found; run `make gate`, which makes it") from None


def log_in(server: Server, client: "gitlab.Gitlab") -> int:
    """Returns the id of the user whose token it is.

    Raises:
        ApiError: If the token is not accepted.
    """
    server.ask("log in", client.auth)
    if client.user is None:
        raise ApiError("GitLab: cannot log in: the server names no user")
    return int(client.user.id)


def write(notes: Any, author: int, body: str) -> str:
    """Writes the note, or updates the one that is there; done twice, there is still one note.

    Args:
        notes: The merge request's.
        author: The user who writes; only a note of theirs is taken for that of an earlier run.
        body: The note's new text.

    Returns:
        What was done.
    """
    for note in notes.list(iterator=True, order_by="created_at", sort="asc"):
        if note.body.startswith(MARKER) and note.author["id"] == author:
            note.body = body
            note.save()
            return "updated the note"
    notes.create({"body": body})
    return "wrote a note"


def link_pictures(text: str, server: Server, project: Any) -> str:
    """Uploads the pictures that a text shows and links them; one that cannot be uploaded is only named."""

    def link(found: re.Match[str]) -> str:
        caption, name = found.groups()
        path = GATE / name
        try:
            if not path.is_file():
                raise ApiError(f"{path}: not found")
            answer = server.ask(f"upload {name}", lambda: project.upload(name, filepath=str(path)))
        except ApiError as error:
            print(f"a picture less in the note: {error}")
            return f"*{caption or name}: in the job's artifacts*"
        return f"![{caption}]({answer['url']})"

    return PICTURE.sub(link, text)


if __name__ == "__main__":
    command.run(main)
