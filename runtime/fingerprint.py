"""What generated code depends on besides a spec: the code that generates it."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files

_GENERATING = (
    ("attnc", ".py"),
    ("attnc.bounds", ".py"),
    ("attnc.intervals", ".py"),
    ("attnc.ir", ".py"),
    ("attnc.render", ".py"),
    ("attnc.simplify", ".py"),
)


@functools.cache
def generator_digest(suffix: str) -> str:
    """SHA-256 of the templates named ``*suffix`` and of the compiler's modules, in hexadecimal.

    A change of either makes other kernels, also between releases.
    """
    digest = hashlib.sha256()
    for package, ending in (("attnc.codegen_templates", suffix), *_GENERATING):
        folder = files(package)
        for file in sorted(folder.iterdir(), key=lambda item: item.name):
            if file.name.endswith(ending):
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
