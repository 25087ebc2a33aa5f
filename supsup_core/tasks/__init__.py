"""Families of tasks: what each does to the images and which classes it has, a family a file."""

from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Family, Setting, Task
from supsup_core.tasks.rotated import Rotated
from supsup_core.tasks.split import Split

FAMILIES: dict[str, Family] = {
    "permuted": Permuted(),
    "rotated": Rotated(),
    "permuted_rotated": Rotated(is_permuted=True),
    "split": Split(),
}

__all__ = ["FAMILIES", "Family", "Setting", "Task"]
