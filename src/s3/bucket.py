"""An S3 bucket, on AWS or any store that speaks S3: files uploaded whole, small ones by compare-and-swap.

Credentials come from the chain that all AWS libraries follow (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
AWS_PROFILE, the machine's role); the store from AWS_ENDPOINT_URL where it is not AWS. Server errors,
throttling and lost connections are tried again with a pause that grows; a refusal is said at once.
"""

import hashlib
import mimetypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from src.errors import UserError
from src.files import sha256

Answer = TypeVar("Answer")

# With pauses of up to 20 seconds: docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
ATTEMPTS = 8
TRIES = 4  # of a content whose connection is lost while it comes
CONNECT, READ = 10, 60  # seconds to connect, and between two bytes
PAGE = 1000  # files in one answer of a listing, the most that S3 gives
PART = 8 << 20  # bytes of a file that are one request
THREADS = 10
UNKNOWN = ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONFLICT = (409, 412)  # another write was faster, or the condition does not hold


class ChangedError(UserError):
    """An object is not what a conditional request expected."""


class AwayError(UserError):
    """The store does not answer, or says that it cannot at present: the same request may succeed later."""


@dataclass(frozen=True)
class Location:
    """A bucket and a key, or the beginning of keys, in it."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> "Location":
        """Reads s3://bucket/key.

        Raises:
            UserError: If it is none.
        """
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not bucket:
            raise UserError(f"found {url!r}, expected s3://bucket/key")
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Object:
    """What a bucket says of one of its files.

    Args:
        key: Its name.
        size: In bytes.
        etag: Of this content; another content has another.
        sha256: In hexadecimal, where whoever uploaded the file gave it.
        age: Seconds since it was written, by the store's own clock; 0 in a listing.
        encrypted: Whether its ETag cannot be its MD5 for that; not known in a listing.
    """

    key: str
    size: int
    etag: str
    sha256: str | None = None
    age: float = 0.0
    encrypted: bool = False


@dataclass
class Bucket:
    """One bucket. Threads may share it.

    Args:
        name: The bucket's.
        endpoint: The store's address; None: AWS_ENDPOINT_URL, else AWS.
    """

    name: str
    endpoint: str | None = field(default=None)

    @cached_property
    def client(self) -> Any:
        """The client of boto3. Nothing is sent yet.

        Raises:
            UserError: If the configuration of AWS cannot be read.
        """
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        named = (os.environ.get(name) for name in ENDPOINTS)
        elsewhere = self.endpoint or next(filter(None, named), None)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=CONNECT,
            read_timeout=READ,
            max_pool_connections=2 * THREADS,
            # Most stores other than AWS have one host for all buckets.
            s3={"addressing_style": "path"} if elsewhere else None,
        )
        try:
            return boto3.session.Session().client("s3", endpoint_url=elsewhere, config=config)
        except (BotoCoreError, ValueError) as error:
            raise UserError(f"s3://{self.name}: cannot be reached as configured: {error}") from None

    def place(self, key: str) -> str:
        """Returns the address of a file."""
        return f"s3://{self.name}/{key}"

    def ask(self, what: str, key: str, action: Callable[[], Answer]) -> Answer:
        """Does something with the client, and says what went wrong in one sentence.

        Args:
            what: What is done, for the error: "read".
            key: With what.
            action: May be done more than once.

        Raises:
            ChangedError: If a condition does not hold.
            AwayError: If the store does not answer.
            UserError: If the store refuses.
        """
        from boto3.exceptions import S3UploadFailedError
        from botocore import exceptions

        place = self.place(key)
        try:
            return action()
        except exceptions.ClientError as error:
            raise self._refusal(what, place, error) from None
        except S3UploadFailedError as error:
            cause = error.__context__
            if isinstance(cause, exceptions.ClientError):
                raise self._refusal(what, place, cause) from None
            raise UserError(f"{place}: cannot {what}: {error}") from None
        except exceptions.NoCredentialsError:
            raise UserError(
                f"{place}: cannot {what}: no credentials; expected AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment (.env.example)"
            ) from None
        except (exceptions.BotoCoreError, exceptions.HTTPClientError) as error:
            reason = " ".join(str(error).split())
            lost = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
            if not isinstance(error, lost):
                raise UserError(f"{place}: cannot {what}: {reason}") from None
            raise AwayError(f"{place}: cannot {what}: the store does not answer: {reason}") from None

    def changed(self, key: str) -> ChangedError:
        """Returns the error that a file is another one than it was."""
        return ChangedError(f"{self.place(key)}: was changed meanwhile")

    def _refusal(self, what: str, place: str, error: Any) -> UserError:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code, message = (error.response["Error"].get(key, "") for key in ("Code", "Message"))
        # NoSuchKey: what it was to replace is gone. NoSuchUpload: the parts are no longer there.
        if status in CONFLICT or (what == "write" and code == "NoSuchKey") or code == "NoSuchUpload":
            return ChangedError(f"{place}: was changed meanwhile")
        if code in UNKNOWN:
            return UserError(
                f"{place}: cannot {what}: the store does not accept these credentials ({code}); check "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"
            )
        if status == 403:
            return UserError(
                f"{place}: cannot {what}: these credentials may not (403 {code}); expected ones that the "
                "bucket's policy allows to"
            )
        if code == "NoSuchBucket":
            return UserError(f"{place}: cannot {what}: there is no bucket {self.name!r}")
        if status == 404:
            return UserError(f"{place}: not found")
        kind = AwayError if status >= 500 or status == 429 else UserError
        return kind(f"{place}: cannot {what}: the store answers {status} {code}: {message}")

    # ── Small files ────────────────────────────────────────────────────────────────────────────────────────

    def read(self, key: str) -> tuple[bytes, Object] | None:
        """Returns a small file's content and what it is; None if it is not there."""

        def action() -> tuple[bytes, Object] | None:
            try:
                content, answer = self._get(Key=key)
            except self.client.exceptions.NoSuchKey:
                return None
            return content, _object(key, answer)

        return self.ask("read", key, action)

    def read_part(self, found: Object, start: int, end: int) -> bytes:
        """Returns the bytes from `start` up to, but not including, `end` of a file.

        Raises:
            ChangedError: If the file is another one than it was when it was found.
        """
        span = f"bytes={start}-{end - 1}"
        return self.ask(
            "download", found.key, lambda: self._get(Key=found.key, Range=span, IfMatch=found.etag)[0]
        )

    def _get(self, **request: str) -> tuple[bytes, Any]:
        """Returns a content and the answer; asked for again where the connection is lost on the way."""
        from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

        for attempt in range(TRIES):
            answer = self.client.get_object(Bucket=self.name, **request)
            try:
                # `with` on the body alone would give a stream without its checks.
                with closing(answer["Body"]) as body:
                    return body.read(), answer
            except (HTTPClientError, IncompleteReadError, FlexibleChecksumError):
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("not reached")

    def write(self, key: str, content: bytes, over: str | None = None, anyway: bool = False) -> str:
        """Writes a small file, only if it is still what the caller has seen.

        A request whose answer was lost is sent again, and then meets what it wrote itself: the same content
        counts as written. Contents that two writers must not both take for their own have to differ.

        Args:
            key: Its name.
            content: Its bytes.
            over: The ETag of what it replaces; None: nothing must be there.
            anyway: Whether it replaces whatever is there.

        Returns:
            The new ETag.

        Raises:
            ChangedError: If something else is there.
        """
        condition = {} if anyway else {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}

        def action() -> str:
            answer = self.client.put_object(
                Bucket=self.name, Key=key, Body=content, ContentType=_media_type(key), **condition
            )
            return str(answer["ETag"])

        try:
            return self.ask("write", key, action)
        except ChangedError:
            there = self.read(key)
            if there is None or there[0] != content:
                raise
            return there[1].etag

    def find(self, key: str) -> Object | None:
        """Returns what the bucket says of a file; None if it is not there."""
        from botocore.exceptions import ClientError

        def action() -> Object | None:
            try:
                return _object(key, self.client.head_object(Bucket=self.name, Key=key))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

        return self.ask("find", key, action)

    def objects(self, prefix: str = "") -> Iterator[Object]:
        """Yields the files whose keys begin with `prefix`, in the order of their keys."""
        token: dict[str, str] = {}
        while True:
            page = self.ask(
                "list",
                prefix,
                lambda: self.client.list_objects_v2(
                    Bucket=self.name,
                    Prefix=prefix,
                    MaxKeys=PAGE,
                    **token,  # noqa: B023
                ),
            )
            for found in page.get("Contents", []):
                yield Object(found["Key"], found["Size"], found["ETag"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str, over: str | None = None) -> None:
        """Deletes a file, or leaves that there is none as it is.

        Args:
            key: Its name.
            over: Delete only what has this ETag.

        Raises:
            ChangedError: If another one is there.
        """
        condition = {} if over is None else {"IfMatch": over}
        try:
            self.ask("delete", key, lambda: self.client.delete_object(Bucket=self.name, Key=key, **condition))
        except ChangedError:
            # What is gone may be so by our own deletion, whose answer was lost.
            if self.find(key) is not None:
                raise

    # ── Files of any size ──────────────────────────────────────────────────────────────────────────────────

    def upload(self, path: Path, key: str, progress: Callable[[int], Any] = lambda count: None) -> None:
        """Uploads a file, a large one in parts, several at once; it appears whole, with its SHA-256, or not.

        Args:
            path: The file.
            key: Its name in the bucket.
            progress: Called with how many more bytes have been sent; less than none where they have to be
                sent again.
        """
        if path.stat().st_size <= PART:
            content = path.read_bytes()
            about = _about(key, hashlib.sha256(content).hexdigest())
            self.ask(
                "upload",
                key,
                lambda: self.client.put_object(Bucket=self.name, Key=key, Body=content, **about),
            )
            progress(len(content))
            return
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(sha256, path)
            _ = self.client  # takes as long to make, the first time
        self._upload_parts(path, key, digest.result(), progress)

    def _upload_parts(self, path: Path, key: str, digest: str, progress: Callable[[int], Any]) -> None:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_chunksize=PART, multipart_threshold=PART, max_concurrency=THREADS)
        extra, lock = _about(key, digest), Lock()

        def count(more: int) -> None:
            with lock:
                progress(more)

        try:
            self.ask(
                "upload",
                key,
                lambda: self.client.upload_file(str(path), self.name, key, extra, count, config),
            )
        except ChangedError:
            there = self.find(key)  # it may be whole, and only the answer to that lost
            if there is None or there.sha256 != digest:
                raise


def _about(key: str, digest: str) -> dict[str, Any]:
    """Returns what is said of a file when it is uploaded."""
    return {"ContentType": _media_type(key), "Metadata": {"sha256": digest}}


def _object(key: str, answer: Any) -> Object:
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return Object(
        key,
        answer["ContentLength"],
        answer["ETag"],
        answer.get("Metadata", {}).get("sha256"),
        (now - answer["LastModified"]).total_seconds(),
        "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "").startswith("aws:kms"),
    )


def _media_type(key: str) -> str:
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
