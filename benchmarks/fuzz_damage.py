"""Ways to damage a run directory or the files of a data set, for benchmarks/fuzz.py.

A damage is a function that changes one file, one folder or one value, and returns a line that
describes the change.
"""

import gzip
import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.data.catalogue import load_dataset
from harness.data.idx import IDX

Damage = Callable[[Path, Path, random.Random], str]  # (run, another run, generator) -> description

# Values to write in place of a value in a stored file.
ABSURD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        10**30,
        1e308,
        float("inf"),
        float("nan"),
        "",
        "a",
        "9" * 400,
        "../..",
        "~",
    ),
    *([], {}, [[[[]]]], {"a": {"b": [1, 2]}}, "\x00", "é\n"),
]


def files_of(run: Path) -> list[Path]:
    """List the regular files of a run, sorted, without the report and the lock."""
    found = [p for p in run.rglob("*") if p.is_file() and not p.is_symlink()]
    return sorted(p for p in found if p.name not in ("report.html", "lock"))


def _pick(run: Path, draw: random.Random) -> Path:
    """Pick a folder at random, and then one of its files at random."""
    folders: dict[Path, list[Path]] = {}
    for path in files_of(run):
        folders.setdefault(path.parent, []).append(path)
    return draw.choice(folders[draw.choice(sorted(folders))])


def truncate(run: Path, other: Path, draw: random.Random) -> str:
    """Cut off the end of a file."""
    path = _pick(run, draw)
    size = path.stat().st_size
    kept = draw.randrange(size) if size else 0
    os.truncate(path, kept)
    return f"cut {path.relative_to(run)} to {kept} of {size} bytes"


def flip(run: Path, other: Path, draw: random.Random) -> str:
    """Invert one bit of a file."""
    path = _pick(run, draw)
    content = bytearray(path.read_bytes())
    if not content:
        return f"nothing to flip in {path.relative_to(run)}"
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))
    return f"flipped bit {bit} of byte {place} of {path.relative_to(run)}"


def overwrite(run: Path, other: Path, draw: random.Random) -> str:
    """Replace the content of a file by other bytes."""
    path = _pick(run, draw)
    content = draw.choice(
        [b"", b"\x00" * 100, b"{}", b"[]", b"just words\n", b"\xff\xfe", b"a: [1"]
    )
    path.write_bytes(content)
    return f"wrote {content[:12]!r} into {path.relative_to(run)}"


def delete(run: Path, other: Path, draw: random.Random) -> str:
    """Delete a file or a folder."""
    found = [p for p in sorted(run.rglob("*")) if p.name != "lock"]
    path = draw.choice(found) if draw.random() < 0.4 else _pick(run, draw)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return f"deleted {path.relative_to(run)}"


def duplicate(run: Path, other: Path, draw: random.Random) -> str:
    """Copy a file to a new name in the same folder."""
    path = _pick(run, draw)
    twin = path.with_name(draw.choice(["0copy", "zcopy"]) + path.suffix)
    shutil.copy(path, twin)
    return f"copied {path.relative_to(run)} to {twin.name}"


def swap(run: Path, other: Path, draw: random.Random) -> str:
    """Replace a file or a folder by the same file or folder of another run."""
    path = _pick(run, draw)
    if draw.random() < 0.4 and path.parent != run:
        path = path.parent
    source = other / path.relative_to(run)
    if not source.exists():
        return f"the other run has no {path.relative_to(run)}"
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
    return f"took {path.relative_to(run)} from another run"


def link(run: Path, other: Path, draw: random.Random) -> str:
    """Replace a file or a folder by a link to itself, to a device, or to a path outside the run."""
    path = draw.choice([_pick(run, draw), run / "lock", run / "log", run / "evaluations"])
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    outside = run.parent / "outside"
    target = draw.choice([path, Path("/dev/zero"), outside / "file", outside])
    path.symlink_to(target)
    return f"linked {path.relative_to(run)} to {target.name}"


def special(run: Path, other: Path, draw: random.Random) -> str:
    """Replace a file by a FIFO or a folder."""
    path = draw.choice([_pick(run, draw), run / "lock", run / "config.yaml"])
    path.unlink(missing_ok=True)
    if draw.random() < 0.5:
        os.mkfifo(path)
        return f"made {path.relative_to(run)} a FIFO"
    path.mkdir()
    return f"made {path.relative_to(run)} a folder"


def _leaves(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the path to each value in a JSON tree, as a tuple of keys and indices."""
    found = [place] if place else []
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            found += _leaves(value, (*place, key))
    return found


def change_json(run: Path, other: Path, draw: random.Random) -> str:
    """Change one value of provenance.json or of a zarr.json."""
    path = draw.choice([p for p in files_of(run) if p.suffix == ".json"])
    tree = json.loads(path.read_text())
    place, value = draw.choice(_leaves(tree)), draw.choice(ABSURD)
    node = tree
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path.write_text(json.dumps(tree))
    return f"set {'.'.join(map(str, place))} of {path.relative_to(run)} to {value!r:.40}"


def change_yaml(run: Path, other: Path, draw: random.Random) -> str:
    """Change, repeat or remove a line of config.yaml, nest it deeply, or add many YAML aliases."""
    path = run / "config.yaml"
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    kind = draw.choice(["value", "drop", "repeat", "deep", "bomb"])
    if kind == "value":
        key = lines[at].partition(":")[0]
        lines[at] = f"{key}: {draw.choice(ABSURD)!r}"
    elif kind == "drop":
        del lines[at]
    elif kind == "repeat":
        lines.insert(at, lines[at])
    elif kind == "deep":
        lines[at] = lines[at].partition(":")[0] + ": " + "[" * 3000
    else:
        bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        lines += bomb
    path.write_text("\n".join(lines) + "\n")
    return f"config.yaml: {kind} at line {at + 1}"


def change_parquet(run: Path, other: Path, draw: random.Random) -> str:
    """Change the metadata, the columns or the rows of a Parquet file."""
    path = draw.choice([p for p in files_of(run) if p.suffix == ".parquet"])
    table = pq.read_table(path, partitioning=None)
    kind = draw.choice(["version", "metadata", "column", "rows"])
    if kind == "version":
        table = table.replace_schema_metadata({"schema_version": draw.choice(["0", "99", "x"])})
    elif kind == "metadata":
        table = table.replace_schema_metadata({})
    elif kind == "column":
        table = table.drop_columns([draw.choice(table.column_names)])
    else:
        table = table.slice(0, len(table) // 2)
    pq.write_table(table, path)
    return f"changed the {kind} of {path.relative_to(run)}"


DAMAGES: tuple[Damage, ...] = (
    *(truncate, flip, overwrite, delete, duplicate, swap, link, special),
    *(change_json, change_yaml, change_parquet),
)


def write_data(folder: Path) -> None:
    """Write the digits of scikit-learn as the four idx files of MNIST: a data set of 90 kB."""
    digits = load_dataset("digits")
    for prefix, images in (("train", digits.train), ("t10k", digits.test)):
        num, _, *sides = images.images.shape
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", (num, *sides), images.images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", (num,), images.labels)


def _write_idx(path: Path, shape: tuple[int, ...], values: np.ndarray) -> None:
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def publish(folder: Path) -> None:
    """Make this process and its forks accept the files in a folder as the published MNIST."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    IDX["mnist"] = replace(
        IDX["mnist"],
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        num_bytes={name: len(content) for name, content in contents.items()},
    )


def damage_data(folder: Path, draw: random.Random) -> str:
    """Damage a file of a data set, or the folder itself.

    The file may also be compressed, or be moved to the folder that torchvision uses.

    Args:
        folder: the folder of the four files.
        draw: generator of random numbers.
    """
    path = draw.choice(sorted(folder.iterdir()))
    kind = draw.choice(_DATA_DAMAGES)
    content, form = path.read_bytes(), draw.choice(["plain", "packed", "torchvision"])
    path.unlink()
    if form == "packed":
        path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content, mtime=0)
    elif form == "torchvision":
        path = folder / "MNIST" / "raw" / path.name
        path.parent.mkdir(parents=True)
    at = draw.randrange(len(content))
    if kind == "cut":
        path.write_bytes(content[:at])
    elif kind == "flipped":
        flipped = bytearray(content)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
    elif kind == "longer":
        path.write_bytes(content + draw.randbytes(draw.choice([1, 10**6])))
    elif kind == "bomb" and form == "packed":  # 100 MB of zeros
        path.write_bytes(gzip.compress(bytes(10**8), 1))
    elif kind == "bomb":  # 1 TB of zeros, of which the disk stores none
        path.touch()
        os.truncate(path, 2**40)
    elif kind == "other":  # another file of the data set, such as labels in the place of images
        path.write_bytes(draw.choice(sorted(p for p in folder.glob("*-ubyte"))).read_bytes())
    elif kind in _WORDS:
        path.write_bytes(_WORDS[kind])
    elif kind == "linked":
        path.symlink_to(draw.choice([Path("/dev/zero"), path, folder, Path("/nowhere")]))
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no folder":
        shutil.rmtree(folder)
        draw.choice([os.mkfifo, Path.touch, lambda place: place.symlink_to(place)])(folder)
    else:
        assert kind in ("intact", "missing")
        if kind == "intact":
            path.write_bytes(content)
    return f"data: {kind}, {form} {path.name}"


# The contents of files that are no data set, and of the npz of Keras' MNIST, whose arrays numpy
# would read.
_WORDS = {
    "empty": b"",
    "words": b"just words\n",
    "header": struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31),
    "npz": b"PK\x03\x04" + bytes(26) + b"x_train.npy",
}
_DATA_DAMAGES = [
    *("cut", "flipped", "longer", "bomb", "other", *_WORDS, "linked", "FIFO", "folder"),
    *("no folder", "intact", "missing"),
]
