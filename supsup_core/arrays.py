"""Shape letters used throughout, and the one check of a shape that a caller got wrong.

T  tasks, or masks in a superposition     B  tasks of a block, trained together
N  images of a batch or a data set        P  pixels of an image
O  outputs of a layer                     I  inputs of a layer
S  outputs of the network                 Q  queries, inferred together
R  bytes of a packed mask row             F  bits of a packed mask row, 8 R
"""

from collections.abc import Sequence


def check_shape(name: str, got: Sequence[int], expected: Sequence[int], letters: str) -> None:
    """Raise where an array has another shape than expected.

    Args:
        name: of the argument, as the caller wrote it.
        got: the shape that came.
        expected: the shape that was wanted.
        letters: the same in shape letters, such as "T P".

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{name} must have shape ({', '.join(letters.split())}) = {tuple(expected)}, "
            f"got {tuple(got)}"
        )
