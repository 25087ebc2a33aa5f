"""A bucket of S3 or Google Cloud Storage, and the errors of its server.

Environment variables give the server and the credentials: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the variables that Google's libraries read. Without
these variables, a cloud machine uses the credentials of its role.

The harness uses obstore because the file systems of Arrow have no conditional put: a put that fails
if the object has changed.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import GCSStore, S3Store
from pyarrow.fs import resolve_s3_region

from harness.errors import UserError
from harness.places.stderr import stderr_held_back


@dataclass(frozen=True)
class Patience:
    """Time limits and retries of requests to a server.

    Attributes:
        connect: seconds that it may take to connect to the server.
        request: seconds that one try of a request may take.
        again: no retry begins later than this many seconds after the start of the first try.
        pause: longest pause before a retry, in seconds.
        tries: largest number of retries after the first try.
    """

    connect: int
    request: int
    again: int
    pause: int
    tries: int


AT_WORK = Patience(connect=5, request=30, again=40, pause=5, tries=30)
_AT_FIRST = Patience(connect=3, request=5, again=5, pause=1, tries=1)
LONGEST_WRITE = AT_WORK.again + AT_WORK.pause + AT_WORK.request
"""A write that began this many seconds ago, or earlier, can no longer reach the server."""

_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CHECK = {
    "s3": "check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL",
    "gs": "check the bucket and GOOGLE_APPLICATION_CREDENTIALS",
}
# A cloud machine gets its credentials from this address. obstore uses the address if no environment
# variable has credentials.
_OF_CLOUD_MACHINES = "169.254.169.254"


class Bucket:
    """A bucket, and the client with which this process uses the bucket.

    Args:
        scheme: "s3" or "gs".
        name: the bucket's name.

    Attributes:
        before_write: function that is called before every write. The function raises an error if
            this process may no longer write.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self.scheme, self.name = scheme, name
        self._known = _region(name) if scheme == "s3" else {}
        self.before_write: Callable[[], None] = lambda: None
        self.client = self.store("", AT_WORK)

    def store(self, prefix: str, patience: Patience) -> S3Store | GCSStore:
        """Make a client for the objects below a prefix, with given time limits and retries."""
        kind: Any = S3Store if self.scheme == "s3" else GCSStore
        made: S3Store | GCSStore = kind(
            self.name,
            prefix=prefix or None,
            client_options={
                "allow_http": True,  # the endpoint may be an http:// URL
                "connect_timeout": timedelta(seconds=patience.connect),
                "timeout": timedelta(seconds=patience.request),
            },
            retry_config={
                "max_retries": patience.tries,
                "backoff": {"max_backoff": timedelta(seconds=patience.pause)},
                "retry_timeout": timedelta(seconds=patience.again),
            },
            **self._known,
        )
        return made


def _region(bucket: str) -> dict[str, str]:
    """Ask AWS for a bucket's region, unless the environment names a region or an endpoint.

    Returns:
        {"region": name}; {} if the environment names a region or an endpoint, or if AWS does not
        answer.
    """
    if any(os.environ.get(name) for name in (*_ENDPOINTS, *_REGIONS)):
        return {}
    try:
        return {"region": resolve_s3_region(bucket)}
    except OSError:  # no such bucket, or no network: the first request will report that
        return {}


def open_bucket(scheme: str, name: str, key: str) -> Bucket:
    """Make the client of a bucket, and check that the bucket answers.

    Args:
        scheme: "s3" or "gs".
        name: the bucket's name.
        key: the prefix of the keys to list. A user may have no right to list other keys.

    Raises:
        UserError: the bucket does not exist, refuses access or does not answer within a few
            seconds, or the endpoint in the environment is no http URL.
    """
    for variable in _ENDPOINTS:
        given = os.environ.get(variable, "")
        if scheme == "s3" and given and not re.match(r"https?://[^/]", given):
            raise UserError(
                f"{variable} must begin with http:// or https://, got {given!r}: "
                f"try {variable}=https://HOST"
            )
    with explained(f"{scheme}://{name}", _CHECK[scheme]), stderr_held_back():
        bucket = Bucket(scheme, name)
        obstore.list_with_delimiter(bucket.store(key, _AT_FIRST))
    return bucket


@contextmanager
def explained(url: str, advice: str) -> Iterator[None]:
    """Turn an error of the server or of the network into a UserError.

    Args:
        url: the URL that the error names.
        advice: a text that says what the user can do.
    """
    try:
        yield
    except BaseException as error:
        # If an environment variable has a value that cannot be part of a request, obstore raises a
        # PanicException. This class is no Exception and cannot be imported, so compare its name.
        if not isinstance(error, BaseError) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{url} cannot be used: {_reason(str(error))}: {advice}") from error


def _reason(text: str) -> str:
    """Extract the reason from an obstore error of many lines."""
    if _OF_CLOUD_MACHINES in text:
        return "no credentials in the environment"
    if code := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{code[1]}, {code[2].rstrip('.')}"
    line = " ".join(text.partition("\n\nDebug source")[0].split())
    if request := re.search(r"Error performing (\w+) ([^ ?]+)\S* in .*? - (.*)", line):
        return f"{request[1]} {request[2]}: {request[3].rstrip(': ')}"
    return line
