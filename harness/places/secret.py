"""Secrets of this user: small files that no other user can read or replace."""

import os
import re
import secrets
from pathlib import Path

from harness.errors import UserError
from harness.places.durable import write_durably

_OTHERS = 0o077  # the rights of the group and of all other users


def make_secret(path: Path) -> None:
    """Make a file with a new random secret, which only this user can read.

    Do nothing if the file exists.

    Args:
        path: path of the file. Its folders are made if they are missing.

    Raises:
        OSError: the file cannot be made.
    """
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_durably(path, secrets.token_hex(32).encode(), exclusive=True, mode=0o600)
    except FileExistsError:  # another process made it just now
        return


def read_secret(path: Path) -> bytes:
    """Read a secret that make_secret made.

    Returns:
        The 64 hexadecimal digits of the secret.

    Raises:
        UserError: the file belongs to another user, other users have rights to it, or its content
            is not 64 hexadecimal digits.
        OSError: the file cannot be read.
    """
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
        raise UserError(
            f"{path} must belong to user {os.geteuid()} with mode 600, got user {status.st_uid} "
            f"and mode {status.st_mode & 0o777:o}: delete the file"
        )
    secret = path.read_bytes()
    if not re.fullmatch(rb"[0-9a-f]{64}", secret):
        raise UserError(f"{path} must hold 64 hexadecimal digits: delete the file")
    return secret
