"""A real S3 server on the loopback address: SeaweedFS, with its data in a folder.

Three identities: `writer` may do everything, `reader` may read, `stranger` has the writer's name and another
secret.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "team"
IDENTITIES = {"writer": ["Admin"], "reader": [f"Read:{BUCKET}", f"List:{BUCKET}"]}
SECONDS = 30.0  # to be ready


class S3Server:
    """The server, which may be killed and started again on the same data.

    Args:
        folder: Where its data, and its log, are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
                "actions": actions,
            }
            for name, actions in IDENTITIES.items()
        ]
        (folder / "identities.json").write_text(json.dumps({"identities": identities}))
        self.ports = free_ports(4)
        self.url = f"http://127.0.0.1:{self.ports[3]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        master, volume, filer, s3 = self.ports
        command: list[str | Path] = [
            Path(sys.executable).with_name("weed"),
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            "-master.volumeSizeLimitMB=64",
            "-master.electionTimeout=1s",
            "-master.heartbeatInterval=200ms",
            "-master.telemetry=false",
            f"-volume.port={volume}",
            "-volume.max=200",
            "-volume.preStopSeconds=0",
            "-filer",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.config={self.folder / 'identities.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        end = time.monotonic() + SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.folder / "log.txt").read_text())
            time.sleep(0.1)

    def _ready(self) -> bool:
        """Whether it answers and has read who may do what."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):
                self._client().list_buckets()
        except (OSError, BotoCoreError, ClientError):
            return False
        return True

    def kill(self) -> None:
        """Ends it at once, as a loss of power would."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def environment(self, name: str) -> dict[str, str]:
        """Returns the variables by which the AWS libraries reach it as one of the identities."""
        user = "writer" if name == "stranger" else name
        return {
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": f"{name}-secret",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str = BUCKET) -> None:
        """Makes a bucket."""
        self._client().create_bucket(Bucket=name)

    def _client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="writer",
            aws_secret_access_key="writer-secret",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )


def free_ports(count: int) -> list[int]:
    """Returns free ports; SeaweedFS takes that 10,000 above each of them too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1] % 30000 + 20000
            try:
                with socket.socket() as other:
                    other.bind(("127.0.0.1", port))
                    second.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
