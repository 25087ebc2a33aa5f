"""Import a user's own code, which the configuration names as package.module:object.

The folder in which the command was typed comes first on Python's path, as with `python -m`. So a
file in this folder needs no installation.
"""

import importlib
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from traceback import format_exception
from typing import Any, cast

from harness.errors import UserError, one_line, origin
from supsup_core.knobs import OWN_OBJECT


def is_own(name: str) -> bool:
    """Return whether a value of the configuration has the form package.module:object."""
    return re.fullmatch(OWN_OBJECT, name) is not None


def import_own(kind: str, name: str) -> Callable[..., Any]:
    """Import a function or a class of the user's own code.

    Args:
        kind: the key that names the object: data, family, network or method.
        name: the name, as package.module:object.

    Raises:
        UserError: the module or the object is missing, the module cannot be imported, or the object
            cannot be called. If the module raised an error, the message has the file and the line.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may be a second old
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even call sys.exit
        if isinstance(error, ModuleNotFoundError) and _is_or_contains(error.name, module_name):
            raise UserError(
                f"{kind}={name} must name a module that Python finds, got no module {error.name}: "
                f"put the file into {here}, or set PYTHONPATH to its folder"
            ) from error
        raise UserError(
            f"{kind}={name} must name a module that can be imported, got {one_line(error)}"
            f"{origin(''.join(format_exception(error)))}: correct the file"
        ) from error
    target = getattr(module, attribute, None)
    if callable(target):
        return cast(Callable[..., Any], target)
    file = getattr(module, "__file__", None) or module_name
    if target is not None:
        raise UserError(
            f"{kind}={name} must name a function or a class, got {type(target).__name__}: "
            f"correct {file}, or name another object"
        )
    others = [key for key, value in vars(module).items() if _is_defined(value, module_name)]
    near = get_close_matches(attribute, others, n=1) or others[:1]
    advice = f"try {kind}={module_name}:{near[0]}" if near else "add it to the file"
    raise UserError(f"{kind}={name} must name an object of {file}, got no {attribute}: {advice}")


def _is_or_contains(missing: str | None, module: str) -> bool:
    """Return whether `missing` is the name of `module`, or of a package that contains `module`."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _is_defined(value: Any, module: str) -> bool:
    """Return whether a module defines a function or a class, and does not only import it."""
    return callable(value) and getattr(value, "__module__", None) == module
