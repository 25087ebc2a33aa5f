"""Read TensorBoard's event files, for tests of loggers."""

import struct
from collections import defaultdict
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def events(folder: Path) -> tuple[dict[str, dict[int, float]], list[str]]:
    """Return the numbers of TensorBoard's event files: name -> {step: value}, and their texts."""
    numbers: dict[str, dict[int, float]] = defaultdict(dict)
    texts: list[str] = []
    for file in sorted(folder.glob("events.*")):
        content = file.read_bytes()
        while content:  # a record is: size, checksum, event, checksum
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                if value.HasField("tensor"):
                    texts += [one.decode() for one in value.tensor.string_val]
                else:
                    numbers[value.tag][event.step] = value.simple_value
    return dict(numbers), texts
