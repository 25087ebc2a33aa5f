"""Files of a run directory, which is a folder on this machine or a URL of object storage."""

import os
from pathlib import Path, PurePosixPath

from pyarrow.fs import FileType

from analysis.load import file_system


def name_of(run_dir: str | Path) -> str:
    """Return the last part of a path or a URL."""
    return PurePosixPath(run_dir).name


def is_file(run_dir: str | Path, name: str) -> bool:
    """Return whether a run directory has a file of this name.

    Args:
        run_dir: a path or a URL; see analysis.load.as_path.
        name: the path of the file in the run directory.

    Raises:
        OSError: the server of a URL does not answer, or refuses the request.
    """
    files, root = file_system(run_dir)
    return bool(files.get_file_info(f"{root}/{name}").type == FileType.File)


def write_page(run_dir: str | Path, name: str, html: str, modified_at: float) -> str | Path:
    """Write an HTML page into a run directory. If this fails, the old page stays unchanged.

    Args:
        run_dir: a path or a URL.
        name: the name of the page.
        html: its content.
        modified_at: the modification time that the file gets, in seconds since 1970. An object in a
            bucket always has the time at which it was written.

    Returns:
        The path or the URL of the page.

    Raises:
        OSError: the page cannot be written.
    """
    if isinstance(run_dir, Path):
        file = run_dir / name
        partial = file.with_name(f".{name}.{os.getpid()}.partial")
        try:
            partial.write_text(html, encoding="utf-8")
            os.utime(partial, (modified_at, modified_at))
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        return file
    files, root = file_system(run_dir)
    # A browser shows the object as a page only if it has this type. An upload becomes an object
    # when it ends without an error.
    told = {"Content-Type": "text/html; charset=utf-8"}
    with files.open_output_stream(f"{root}/{name}", metadata=told) as stream:
        stream.write(html.encode())
    return f"{str(run_dir).rstrip('/')}/{name}"
