"""The section with the configuration and the provenance of a run."""

from pathlib import Path
from typing import Any

import yaml

from analysis.load import file_system
from analysis.pages.content import Code, Details, Part, Section, table
from analysis.reading import LARGEST_JSON, parse_json, read_text


def origin(configuration: str, starts: list[dict[str, Any]]) -> Section:
    """Show the configuration and the starts of a run.

    Args:
        configuration: the text of config.yaml.
        starts: the result of read_starts.
    """
    parts: list[Part] = [Details("config.yaml", [Code(configuration)])]
    if starts:
        rows = [
            [one.get("at", ""), one.get("commit") or "unknown", " ".join(one.get("command", []))]
            for one in starts
        ]
        last = {key: starts[-1].get(key) for key in ("machine", "versions")}
        parts += [
            table("Starts", ["time", "commit", "command"], rows),
            Details("Machine and versions", [Code(yaml.safe_dump(last, sort_keys=False))]),
        ]
    return Section("Configuration and provenance", parts)


def read_starts(run_dir: str | Path) -> list[dict[str, Any]]:
    """Read the starts of a run from its provenance.json; [] if the file does not exist.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a mapping with a list of starts.
    """
    files, root = file_system(run_dir)
    file = f"{root}/provenance.json"
    try:
        starts = parse_json(read_text(files, file, LARGEST_JSON), file)["starts"]
        if all(isinstance(one, dict) and _is_command(one.get("command", [])) for one in starts):
            return list(starts)
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{file} must be JSON with a list `starts`, got other content: restore the file from a "
        "copy of the run, or remove it"
    )


def _is_command(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)
