"""Attributes of a mask store's Zarr group: make, check and compare them.

The attributes describe the layout of a row and the training of the masks. So a mask can be
evaluated with zarr and numpy, without this project. The attributes are written once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import UserError
from harness.places.places import Place
from harness.storage.content import StoreContent
from supsup_core.states.layout import StateLayout

FORMAT_VERSION = 3
# Every store holds these sentences in its attribute `decode`, and every start compares them with
# the texts here. After any change of the words, existing runs would be refused.
_GAIN = "gain of a tensor = scale (1 if none) * sum over its planes of coefficient * bits"
_OVER = {
    "weights": "effective weight of a tensor over weights = weights/<source> * gain",
    "units": "a gain over units multiplies all that a unit of layer <source> sends",
}
_HEADS = "a float of role head is the gain of its tensor"
_FACTORS = (
    "the gain of a tensor with two floats of role factor is their outer product, first * second, "
    "repeated over the positions of a kernel"
)
_ONES = "the gain of a tensor without planes and floats is 1"
_STATISTICS = (
    "floats of role statistic are the running mean and (unbiased) variance of a batch "
    "normalisation without affine part, whose epsilon is 1e-5 unless the module says otherwise"
)
_NONE = object()  # stands for a missing attribute


def check_format(path: Place, attributes: Mapping[str, Any]) -> None:
    """Check that this program can read a store.

    Args:
        path: path of the store, for the error.
        attributes: a mapping from name to JSON value: the attributes of the store's group.

    Raises:
        UserError: format_version is not FORMAT_VERSION, row_bytes is not a whole number >= 1, or
            run_id is no text.
    """
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} must have format_version {FORMAT_VERSION}, got {version}: choose another "
            "run_dir to train the masks again, or use the program version that wrote this store"
        )
    row_bytes = attributes.get("row_bytes")
    if not isinstance(row_bytes, int) or row_bytes < 1:
        raise UserError(
            f"{path / 'zarr.json'} must have an attribute row_bytes, a whole number >= 1, got "
            f"{row_bytes!r}: restore the file"
        )
    if not isinstance(attributes.get("run_id"), str):
        raise UserError(
            f"{path / 'zarr.json'} must have an attribute run_id, the identity of the run, got "
            f"{attributes.get('run_id')!r}: restore the file"
        )


def group_attributes(content: StoreContent) -> dict[str, Any]:
    """Make all attributes of a store's group, a mapping from name to JSON value.

    Raises:
        ValueError: `content.attributes` has an attribute that the layout sets.
    """
    layout, given = content.layout, {**content.attributes, **content.shared.attributes}
    own = {
        "format_version": FORMAT_VERSION,
        "tensors": [
            {"name": t.name, "source": t.source, "shape": list(t.shape), "over": t.over}
            for t in layout.tensors
        ],
        "planes": [
            {
                "tensor": plane.tensor,
                "role": plane.spec.role,
                "coefficient": plane.spec.coefficient,
                "byte_offset": plane.byte_offset,
                "num_bits": plane.num_bits,
            }
            for plane in layout.planes
        ],
        "floats": [
            {
                "name": place.spec.name,
                "role": place.spec.role,
                "tensor": place.spec.tensor,
                "byte_offset": place.byte_offset,
                "shape": list(place.spec.shape),
            }
            for place in layout.floats
        ],
        "decode": decoding(layout),
        "bit_order": "little",
        "row_bytes": layout.row_bytes,
    }
    if clash := own.keys() & given.keys():
        raise ValueError(f"attributes must not name {sorted(clash)}: the layout sets them")
    return {**own, **given}


def decoding(layout: StateLayout) -> str:
    """Return a text that explains how to compute gains from the planes and floats of a row."""
    kinds = ((_GAIN, layout.planes), (_HEADS, layout.heads), (_FACTORS, layout.factors))
    parts = [text for text, present in kinds if present]
    bare = {tensor.name for tensor in layout.tensors} - {plane.tensor for plane in layout.planes}
    if bare - {*layout.heads, *layout.factors}:
        parts.append(_ONES)
    parts += [text for over, text in _OVER.items() if _has(layout, over)]
    if any(place.spec.role == "statistic" for place in layout.floats):
        parts.append(_STATISTICS)
    return "; ".join(parts)


def _has(layout: StateLayout, over: str) -> bool:
    return any(tensor.over == over for tensor in layout.tensors)


def fixed_arrays(attributes: Mapping[str, Any]) -> list[str]:
    """List the names of all arrays of a store except `masks`, such as weights/layer1.

    Args:
        attributes: a mapping from name to JSON value: the attributes of the store's group.
    """
    masked = [tensor["source"] for tensor in attributes.get("tensors", [])]
    names = {"weights": [*masked, *attributes.get("weights", [])]}
    names["inputs"] = attributes.get("inputs", [])
    return list(dict.fromkeys(f"{group}/{name}" for group, all in names.items() for name in all))


def difference(
    stored: Mapping[str, Any], expected: Mapping[str, Any], *, but: Sequence[str] = ()
) -> str | None:
    """Find the first difference between two sets of attributes.

    The attributes are compared as JSON, so a tuple equals a list with the same values.

    Args:
        stored: a mapping from name to JSON value: the attributes of a store.
        expected: a mapping of the same form: the expected attributes. They are compared in this
            order.
        but: names of attributes that are not compared.

    Returns:
        A text with the name, the expected value and the stored value, such as "a.b 1, got 2"; None
        if all attributes agree.
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
