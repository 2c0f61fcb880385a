"""GitLab's API: reached as CI's variables say, tried again when a fault may pass, errors in one sentence.

GITLAB_TOKEN is a project or personal access token with the scope `api`; CI sets the rest. CI_JOB_TOKEN will
not do: it may neither write a note nor make a version of a model. The token goes out in one header and is
masked wherever a server's answer is repeated.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from src.errors import UserError

if TYPE_CHECKING:
    import gitlab

Answer = TypeVar("Answer")

ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; each later pause is twice as long
TIMEOUT = 30.0  # seconds to connect, and between two bytes
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that another attempt may not meet

REASONS = {
    401: "GITLAB_TOKEN is not valid or has expired",
    403: "GITLAB_TOKEN may not do this; it takes the scope `api` and at least the role Developer",
    404: "not found; GITLAB_TOKEN may not see it, or the project has this feature turned off",
    413: "too large for this server's limits",
}


class ApiError(UserError):
    """GitLab did not do what it was asked; `status` is its HTTP status, None if there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Server:
    """A project on a GitLab server."""

    url: str
    project: str
    token: str = field(repr=False)

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> "Server | None":
        """Returns the server that CI's variables name; None without a token or outside GitLab CI."""
        api, project = environ.get("CI_API_V4_URL"), environ.get("CI_PROJECT_ID")
        token = environ.get("GITLAB_TOKEN")
        if not (api and project and token):
            return None
        return cls(api.rstrip("/").removesuffix("/api/v4"), project, token)

    @contextmanager
    def connect(self) -> Iterator["gitlab.Gitlab"]:
        """Yields python-gitlab's client. Nothing is sent yet."""
        import gitlab

        # A token in the Authorization header is the only one that the model registry's files accept.
        with gitlab.Gitlab(self.url, oauth_token=self.token, timeout=TIMEOUT, keep_base_url=True) as client:
            yield client

    def ask(self, what: str, action: Callable[[], Answer]) -> Answer:
        """Does something with the client, again after a pause when the fault may pass.

        Args:
            what: What is being done, for the error: "upload model.onnx".
            action: Must be harmless when done twice.

        Raises:
            ApiError: If GitLab refuses, or does not answer in `ATTEMPTS` attempts.
        """
        import gitlab
        import requests

        for attempt in range(ATTEMPTS):
            try:
                return action()
            except (gitlab.GitlabError, requests.RequestException) as error:
                status = getattr(error, "response_code", None)
                may_pass = status in PASSING if status else isinstance(error, requests.RequestException)
                if not may_pass or attempt == ATTEMPTS - 1:
                    raise ApiError(self._sentence(what, error, status), status) from None
            time.sleep(PAUSE * 2**attempt)
        raise AssertionError("ATTEMPTS is at least 1")

    def _sentence(self, what: str, error: Exception, status: int | None) -> str:
        """Says an error on one line, without the token, whatever the server wrote."""
        import requests

        if status:
            said = " ".join(str(getattr(error, "error_message", "")).split())[:200]
            reason = REASONS.get(status, f"the server says {said!r}")
            reason = f"{status}, {reason}"
        elif isinstance(error, requests.Timeout):
            reason = f"no answer within {TIMEOUT:g} s"
        elif isinstance(error, requests.ConnectionError):
            reason = "the server cannot be reached"
        else:
            reason = " ".join(str(error).split())[:200]
        return f"GitLab: cannot {what}: {reason}".replace(self.token, "[masked]")
