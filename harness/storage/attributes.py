"""The attributes of a mask store's group: what they are, read back, and compared.

They say how the bits of a row lie and what the masks were trained for, so that plain
zarr and numpy can evaluate a mask. They are written once.
"""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from harness.errors import UserError
from harness.places.places import Place
from supsup_core.networks.mlp import Layer
from supsup_core.states.layout import MaskLayout

FORMAT_VERSION = 1
_NONE = object()  # in place of an attribute that is not there


def check_format(path: Place, attributes: Mapping[str, Any]) -> None:
    """Check that this program can read a store.

    Args:
        path: of the store.
        attributes: of its group.

    Raises:
        UserError: another format_version.
    """
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} must have format_version {FORMAT_VERSION}, got {version}: "
            "use the version of this program that wrote it"
        )


def group_attributes(layout: MaskLayout, given: Mapping[str, Any]) -> dict[str, Any]:
    """All attributes of the group: those that the layout sets, and those given.

    Raises:
        ValueError: one is given that the layout sets.
    """
    own = {
        "format_version": FORMAT_VERSION,
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "byte_offset": offset,
                "num_bits": prod(shape),
                # Of masks over units alone, so that stores from before them stay as they are.
                **({} if shape == layer.shape else {"mask_shape": list(shape)}),
            }
            for layer, shape, offset in zip(
                layout.layers, layout.mask_shapes, layout.byte_offsets, strict=True
            )
        ],
        "bit_order": "little",
        "row_bytes": layout.row_bytes,
    }
    if clash := own.keys() & given.keys():
        raise ValueError(f"attributes must not name {sorted(clash)}: the layout sets them")
    return {**own, **given}


def layout_of(path: Place, attributes: Mapping[str, Any]) -> MaskLayout:
    """Read back the layout of a packed row.

    Args:
        path: of the store.
        attributes: of its group.

    Raises:
        UserError: the attributes describe no layout.
    """
    try:
        layers = attributes["layers"]
        return MaskLayout(
            tuple(Layer(layer["name"], _pair(layer["shape"])) for layer in layers),
            tuple(_pair(layer.get("mask_shape", layer["shape"])) for layer in layers),
            tuple(layer["byte_offset"] for layer in layers),
            attributes["row_bytes"],
        )
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path / 'zarr.json'} must have attributes layers and row_bytes that describe a "
            f"row, got {type(error).__name__} {error}: put the file back"
        ) from error


def _pair(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], shape[1]


def difference(
    stored: Mapping[str, Any], expected: Mapping[str, Any], *, but: Sequence[str] = ()
) -> str | None:
    """The first place where attributes differ once they are JSON, where a tuple is a list.

    Args:
        stored: JSON values by name.
        expected: likewise; decides which place is the first.
        but: names that are not compared.

    Returns:
        its name, what was expected and what came, as in "a.b 1, got 2"; None if all agree.
    """
    kept = [{k: v for k, v in side.items() if k not in but} for side in (stored, expected)]
    return _difference("", *json.loads(json.dumps(kept)))


def _difference(name: str, stored: Any, expected: Any) -> str | None:
    places: list[tuple[str, Any, Any]]
    if isinstance(stored, dict) and isinstance(expected, dict):
        prefix = f"{name}." if name else ""
        places = [
            (f"{prefix}{key}", stored.get(key, _NONE), expected.get(key, _NONE))
            for key in {**expected, **stored}
        ]
    elif isinstance(stored, list) and isinstance(expected, list) and len(stored) == len(expected):
        places = [(f"{name}[{i}]", stored[i], expected[i]) for i in range(len(stored))]
    elif stored == expected:
        return None
    else:
        wanted, got = ("none" if v is _NONE else json.dumps(v) for v in (expected, stored))
        return f"{name} {wanted}, got {got}"
    return next((found for place in places if (found := _difference(*place))), None)
