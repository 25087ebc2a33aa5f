"""Functions for the tests of kernels in Triton.

Triton has an interpreter for machines without a GPU. It works only if an environment variable is
set before Triton is imported. So one test of a file runs the file's other tests in a new process.
"""

import os
import subprocess
import sys
from typing import Any

import pytest

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="another test runs it interpreted")
compiled = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter does not compile")


def pass_interpreted(file: str) -> None:
    """Run the tests of a file in a process in which Triton interprets kernels."""
    names = ("HOME", "PATH", "PYTHONPATH")
    env = {n: os.environ[n] for n in names if n in os.environ} | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file, "-rs"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def compile_for(
    capability: int, kernel: Any, types: str, constants: dict[str, Any], **options: Any
) -> None:
    """Compile a kernel without a GPU.

    Args:
        capability: the compute capability times 10, such as 90.
        kernel: the kernel.
        types: the types of the arguments that are no constants, in order.
        constants: the constant arguments.
        options: options of the compiler.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [one for one in kernel.arg_names if one not in constants]
    signature = dict(zip(names, types.split(), strict=True))
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert f"sm_{capability}" in made.asm["ptx"]
    assert made.asm["cubin"]
