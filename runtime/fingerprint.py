"""What generated code depends on besides a spec: the code that generates it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import attnc
from attnc import codegen_templates

#: Folders of `compiler/` whose modules decide what a kernel is; "" is that folder itself.
GENERATING = ("", "bounds", "derivative", "intervals", "ir", "plan", "render", "simplify")
#: Modules of `runtime/` that write what lies beside a kernel, and read it again.
_DESCRIBING = ("arguments.py", "cpu.py", "triton_build.py", "triton_compile.py", "triton_worker.py")


@functools.cache
def generator_digest(suffix: str) -> str:
    """SHA-256 of the templates named ``*suffix`` and of modules that make kernels, in hexadecimal.

    A change of either makes other kernels, also between releases.
    """
    compiler = Path(attnc.__path__[0])  # the packages are read, not imported: that takes longer
    places = [(Path(codegen_templates.__path__[0]), suffix)]
    places += [(compiler / folder, ".py") for folder in GENERATING]
    here = Path(__file__).parent
    places += [(here, name) for name in _DESCRIBING]
    digest = hashlib.sha256()
    for folder, ending in places:
        for file in sorted(folder.glob(f"*{ending}")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
