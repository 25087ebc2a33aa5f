"""The section with the configuration and the provenance of a run."""

from pathlib import Path
from typing import Any

import yaml
from pyarrow.fs import LocalFileSystem

from analysis.pages.content import Code, Heading, Part, Section, table
from analysis.reading import LARGEST_JSON, parse_json, read_text


def origin(configuration: str, starts: list[dict[str, Any]]) -> Section:
    """Show the configuration and the starts of a run.

    Args:
        configuration: the text of config.yaml.
        starts: the result of read_starts.
    """
    parts: list[Part] = [Heading("Configuration"), Code(configuration)]
    if starts:
        rows = [
            [one.get("at", ""), one.get("commit") or "unknown", " ".join(one.get("command", []))]
            for one in starts
        ]
        last = {key: starts[-1].get(key) for key in ("machine", "versions")}
        parts += [
            Heading("Provenance"),
            table("Starts", ["time", "commit", "command"], rows),
            Code(yaml.safe_dump(last, sort_keys=False)),
        ]
    return Section("Configuration and provenance", parts)


def read_starts(run_dir: Path) -> list[dict[str, Any]]:
    """Read the starts of a run from its provenance.json; [] if the file does not exist.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a mapping with a list of starts.
    """
    file = run_dir / "provenance.json"
    if not file.exists():
        return []
    try:
        text = read_text(LocalFileSystem(), str(file), LARGEST_JSON)
        starts = parse_json(text, str(file))["starts"]
        if all(isinstance(one, dict) and _is_command(one.get("command", [])) for one in starts):
            return list(starts)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{file} must be JSON with a list `starts`, got other content: restore the file from a "
        "copy of the run, or remove it"
    )


def _is_command(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)
