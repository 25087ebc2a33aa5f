"""Shape letters used in the whole package, and a check of array shapes.

T  tasks, or masks in a superposition     B  tasks of a block, trained together
N  images of a batch or a data set        P  pixels of an image
O  outputs of a layer                     I  inputs of a layer
S  outputs of the network                 Q  queries that are inferred together
R  bytes of a packed row (one mask)       F  bits of a packed row: F = 8 R
"""

from collections.abc import Sequence


def check_shape(name: str, got: Sequence[int], expected: Sequence[int], letters: str) -> None:
    """Raise ValueError if an array does not have the expected shape.

    Args:
        name: the array's name, for the error message.
        got: the array's shape.
        expected: the shape that the array must have.
        letters: one letter per axis, such as "T P", for the error message.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{name} must have shape ({', '.join(letters.split())}) = {tuple(expected)}, "
            f"got {tuple(got)}"
        )
