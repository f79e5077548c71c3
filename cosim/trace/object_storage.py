"""A trace in object storage, as objects with a common prefix: ``s3://BUCKET/PREFIX``, ``gs://``.

The file systems of pyarrow do the work.  They find credentials as their libraries do, in the
environment and in the user's configuration.

An object appears whole or not at all, and replaces the one before at once.  So the manifest is one
object that is written anew with each segment.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from cosim.errors import StorageError, StorageSilent, UsageError
from cosim.trace.location import MANIFEST, SEGMENTS, Output

CONNECT_SECONDS = 5
"""How long one try to reach the storage may take."""
SILENCE_SECONDS = 30
"""How long the storage may say nothing within a request."""
TRIES = 3
"""How often a request is made before it has failed."""

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs"}
_OPTIONS = {"s3": ("region", "scheme", "endpoint_override"), "gs": ("scheme", "endpoint_override")}
"""What may follow ``?`` in a URI, by scheme; names as pyarrow has them."""


class _Parts(NamedTuple):
    """A URI, taken apart."""

    scheme: str
    bucket: str
    prefix: str
    user: str | None
    password: str | None
    options: dict[str, str]


class ObjectStorage:
    """A prefix in a bucket; see :class:`cosim.trace.location.Location`.

    :param uri: of the prefix.  A key and a secret in it (``s3://KEY:SECRET@BUCKET/PREFIX``) are
        used and never shown.
    :raises UsageError: when ``uri`` is malformed, or its scheme or an option is not supported.
    """

    def __init__(self, uri: str) -> None:
        parts = _parse(uri)
        self._name = "/".join(filter(None, (f"{parts.scheme}://{parts.bucket}", parts.prefix)))
        self._bucket = parts.bucket
        self._root = "/".join(filter(None, (parts.bucket, parts.prefix)))
        self._storage = _storage(parts)

    def __str__(self) -> str:
        return self._name

    def shown(self, name: str) -> str:
        """Return the URI of ``name``, without credentials."""
        return f"{self._name}/{name}"

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the object ``name``.

        :raises OSError: when there is none, or it has more than ``most`` bytes.
        :raises StorageError: when the storage does not give it.
        """
        path = f"{self._root}/{name}"
        with _explained(self.shown(name), "read"), self._storage.open_input_file(path) as file:
            size = file.size()
            if size <= most:
                return bytes(file.read(size))
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")

    def segments(self) -> list[str]:
        """Return the names that segments have, in order.

        :raises StorageError: when the storage does not tell.
        """
        return [name for name in self._names() if fnmatchcase(name, SEGMENTS)]

    def for_scan(self, names: Sequence[str], stack: ExitStack) -> tuple[list[str], Any]:
        """Return the objects ``names`` for a dataset of pyarrow: paths and file system."""
        return [f"{self._root}/{name}" for name in names], self._storage

    def lost_while_scanned(self, text: str) -> StorageError | None:
        """Return what the error ``text`` of a scan says of the storage, if it is about that."""
        if _CODE.search(text) is None and _GOOGLE.search(text) is None:
            return None
        return _failure(self._name, "read", text)

    def why_no_trace(self) -> str:
        """Say why there is no trace, if its manifest is not there."""
        if not self._has_bucket():
            return f"{self._name}: there is no bucket {self._bucket}"
        if self._names():
            return f"{self._name}: holds no {MANIFEST}: not a trace of cosim"
        return f"{self._name}: there is nothing there; `cosim capture GUEST -o URI` writes a trace"

    def check_unused(self) -> None:
        """Check that a trace can begin here.

        :raises UsageError: when there is one, or there is no such bucket.
        :raises StorageError: when the storage does not answer.
        """
        if not self._has_bucket():
            raise UsageError(f"{self._name}: there is no bucket {self._bucket}; make it first")
        if any(name == MANIFEST or fnmatchcase(name, SEGMENTS) for name in self._names()):
            raise UsageError(f"{self._name} already holds a trace; name another place")

    def begin(self) -> Output:
        """Begin a trace.

        :raises UsageError: when there is one, or there is no such bucket.
        :raises StorageError: when the storage does not answer.
        """
        self.check_unused()
        return _Output(self)

    def write(self, name: str, data: bytes) -> None:
        """Make ``data`` the content of the object ``name``.

        :raises StorageError: when the storage does not take it.
        """
        try:
            with _explained(self.shown(name), "written"):
                # Not as a context: that would complete the object after an error, too.
                stream = self._storage.open_output_stream(f"{self._root}/{name}")
                stream.write(data)
                stream.close()
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.shown(name)}: cannot be written; its bucket is gone"
            ) from error

    def _has_bucket(self) -> bool:
        with _explained(self._name, "read"):
            info = self._storage.get_file_info(self._bucket)
        return bool(info.type != fs.FileType.NotFound)

    def _names(self) -> list[str]:
        with _explained(self._name, "listed"):
            found = self._storage.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return sorted(one.base_name for one in found)


class _Output:
    """Writes to object storage."""

    def __init__(self, place: ObjectStorage) -> None:
        self._place = place
        self._manifest = b""
        self._waiting = b""
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def store(self, name: str, data: bytes) -> None:
        self._place.write(name, data)

    def append(self, line: bytes, *, now: bool = True) -> None:
        self._waiting += line
        if now:
            whole = self._manifest + self._waiting
            self._place.write(MANIFEST, whole)
            self._manifest, self._waiting = whole, b""

    def close(self) -> None:
        self._closed = True

    def discard(self) -> None:
        self.close()


def _parse(uri: str) -> _Parts:
    try:
        split = urlsplit(uri)
        user, password = split.username, split.password
        bucket, prefix = split.netloc.rpartition("@")[2], unquote(split.path)
        query = parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query))
    except ValueError:
        # What Python says of it may quote a secret.
        raise UsageError(f"{_scheme(uri)}://...: is not a valid URI") from None
    scheme = _SCHEMES.get(split.scheme)
    if scheme is None:
        raise UsageError(
            f"{split.scheme}://...: traces can be in a folder, or at s3:// or gs:// (file:// is a "
            "folder, too)"
        )
    start = f"{scheme}://"
    if not bucket or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise UsageError(f"{start}...: names no bucket; write {start}BUCKET/PREFIX")
    shown = f"{start}{bucket}{split.path}"
    if split.fragment:
        raise UsageError(f"{shown}: has a #; write %23 if it belongs to the name")
    options = dict(query)
    for name in options:
        if name not in _OPTIONS[scheme]:
            known = ", ".join(_OPTIONS[scheme])
            raise UsageError(f"{shown}: {name!r} is no option of {start} URIs; they have {known}")
    if options.get("scheme", "https") not in ("http", "https"):
        raise UsageError(f"{shown}: the option scheme is http or https")
    endpoint = options.get("endpoint_override", "")
    if "@" in endpoint:
        raise UsageError(f"{shown}: endpoint_override is HOST:PORT, without a user")
    if not _has_port(urlsplit(f"//{endpoint}")):
        raise UsageError(f"{shown}: endpoint_override is HOST:PORT, with a port in 1..65535")
    names = [part for part in prefix.split("/") if part]
    decoded = [None if text is None else unquote(text) for text in (user, password)]
    return _Parts(scheme, bucket, "/".join(names), decoded[0], decoded[1], options)


def _scheme(uri: str) -> str:
    return uri.partition("://")[0]


def _storage(parts: _Parts) -> Any:
    """Return pyarrow's file system for a URI; nothing is asked of the storage yet."""
    if parts.scheme == "gs":
        if parts.user not in (None, "anonymous") or parts.password is not None:
            raise UsageError(
                f"gs://{parts.bucket}/{parts.prefix}: takes no key; credentials come from "
                "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`"
            )
        return fs.GcsFileSystem(
            anonymous=parts.user == "anonymous",
            retry_time_limit=timedelta(seconds=SILENCE_SECONDS),
            **parts.options,
        )
    if (parts.user is None) != (parts.password is None):
        raise UsageError(
            f"s3://{parts.bucket}/{parts.prefix}: has a key or a secret, but not both; better "
            "leave both out and use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    options = {**_endpoint(os.environ), **parts.options}
    return fs.S3FileSystem(
        access_key=parts.user,
        secret_key=parts.password,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        # An object in one request, as long as it is small.
        allow_delayed_open=True,
        **options,
    )


def _endpoint(environment: Mapping[str, str]) -> dict[str, str]:
    """Return where S3 is if the user's environment says so, as for Amazon's own tools."""
    given = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if not given:
        return {}
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
        raise UsageError("AWS_ENDPOINT_URL: is not http://HOST:PORT or https://HOST:PORT")
    if not _has_port(url):
        raise UsageError("AWS_ENDPOINT_URL: its port is not a number in 1..65535")
    return {"scheme": url.scheme, "endpoint_override": url.netloc + url.path.rstrip("/")}


def _has_port(url: SplitResult) -> bool:
    """Return True if ``url`` has a port that exists, or none, which means the scheme's own."""
    try:
        return url.port is None or url.port > 0
    except ValueError:
        return False


_CODE = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))? during (\w+) operation")
_RIGHTS = {
    "ACCESS_DENIED",
    "EXPIRED_TOKEN",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}


_GOOGLE = re.compile(r"google::cloud::Status\(([A-Z_]+)")
_LATER = {
    *("NETWORK_CONNECTION", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "REQUEST_TIMEOUT", "THROTTLING"),
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
}
"""What a server says, or is said of it, that need not be so a minute later."""
_CURL = re.compile(r"(?:curlCode: |CURL error \[)(\d+)")
_CURL_ERRORS = {
    "6": "its host is not known",
    "7": "nobody answers there",
    "28": "no answer in time",
}


@contextmanager
def _explained(where: str, done: str) -> Iterator[None]:
    """Turn an error of pyarrow into one line of ours.

    pyarrow's own text is not shown: it may quote what a server said of a key.

    :param done: what was to be done, for "cannot be ...".
    :raises StorageError: when it fails for another reason than that there is no such object.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _failure(where, done, str(error)) from None


def _failure(where: str, done: str, text: str) -> StorageError:
    """Return the error for what pyarrow says in ``text``."""
    kind = StorageSilent if _passes(text) else StorageError
    return kind(f"{where}: cannot be {done}: {_why(text)}")


def _passes(text: str) -> bool:
    """Return True if the same request may succeed later."""
    google = _GOOGLE.search(text)
    if google:
        return google[1] in _LATER and not _lacks_token(text)
    found = _CODE.search(text)
    code, status = (found[1], found[2]) if found else (None, None)
    return code in _LATER or "curlCode" in text or (status or "").startswith("5")


def _why(text: str) -> str:
    """Return what a failure of the storage means and what to do about it."""
    google = _GOOGLE.search(text)
    if google:
        return _why_google(google[1], text)
    found = _CODE.search(text)
    code, status, operation = found.groups() if found else (None, None, None)
    said = f"{code}{f', HTTP status {status}' if status else ''} at {operation}" if code else ""
    if code == "NETWORK_CONNECTION" or "curlCode" in text:
        reason = _network(text)
        return f"{reason}; check the network and the endpoint, and try again"
    if code == "NO_SUCH_BUCKET":
        return f"there is no such bucket ({said})"
    if code in _RIGHTS or status in ("400", "401", "403"):
        return f"no right to do that, or no valid key ({said}); {_advice(os.environ)}"
    if said:
        return f"the storage answers with an error ({said}); try again, or look in its log"
    return "the storage does not answer as it should; check the network and the endpoint"


def _lacks_token(text: str) -> bool:
    """Return True if Google's library found no credentials, or could not use them."""
    return "OAuth2" in text or "credential" in text.lower()


def _why_google(code: str, text: str) -> str:
    """Return what a failure of Google's storage means and what to do about it."""
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or _lacks_token(text):
        return (
            f"no right to do that, or no credentials ({code}); check "
            "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`"
        )
    if code in _LATER:
        reason = _network(text) if "CURL error" in text else f"it cannot be reached ({code})"
        return f"{reason}; check the network and the endpoint, and try again"
    return f"the storage answers with an error ({code}); try again, or look in its log"


def _network(text: str) -> str:
    found = _CURL.search(text)
    return _CURL_ERRORS.get(found[1] if found else "", "the connection was lost")


def _advice(environment: Mapping[str, str]) -> str:
    if environment.get("AWS_ACCESS_KEY_ID"):
        return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"
    if environment.get("AWS_PROFILE"):
        return "check the profile that AWS_PROFILE names, and the bucket's policy"
    return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
