"""Compiles a rendered Triton kernel for a given machine; needs no GPU.

Run as a program, it does so in a process of its own: where the calling process interprets Triton,
it cannot compile. For the same reason this module imports nothing of attnc.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

REQUEST = "request.json"
METADATA = "metadata.json"
TEXTS = ("ttir", "ttgir", "llir", "ptx", "amdgcn")
BINARIES = ("cubin", "hsaco")


def compile_folder(folder: Path) -> None:
    """Compiles ``kernel.py`` in ``folder`` as its ``request.json`` asks; writes the results there.

    The request has ``function``: its name; ``backend``, ``arch``, ``warp_size``; ``types``: Triton's type of each argument;
    ``ones``: arguments fixed to 1; ``aligned``: arguments that 16 divides; ``options``. Results
    are ``kernel.EXT`` for every stage, and ``metadata.json``.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    request = json.loads((folder / REQUEST).read_text())
    function = getattr(_load(folder / "kernel.py"), request["function"])
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={
            name: "constexpr" if name in request["ones"] else request["types"][name]
            for name in names
        },
        constexprs={name: 1 for name in names if name in request["ones"]},
        attrs={
            (position,): [["tt.divisibility", 16]]
            for position, name in enumerate(names)
            if name in request["aligned"]
        },
    )
    target = GPUTarget(request["backend"], request["arch"], request["warp_size"])
    with tempfile.TemporaryDirectory() as scratch, triton.knobs.cache.scope():
        triton.knobs.cache.dir = scratch  # the results are kept by the caller
        kernel = triton.compile(source, target=target, options=request["options"])
    for stage, content in kernel.asm.items():
        if stage in TEXTS:
            (folder / f"kernel.{stage}").write_text(content)
        elif stage in BINARIES:
            (folder / f"kernel.{stage}").write_bytes(content)
    metadata = kernel.metadata._asdict()
    kept = ("name", "shared", "num_warps", "num_stages", "tmem_size")
    (folder / METADATA).write_text(json.dumps({key: metadata.get(key, 0) for key in kept}))


def _load(path: Path) -> ModuleType:
    # Not imported: that would leave a .pyc in the folder, which is to hold results only.
    module = ModuleType("attnc_offline_kernel")
    module.__file__ = str(path)
    code = compile(path.read_bytes(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - it was generated here
    return module


if __name__ == "__main__":
    for name in sys.argv[1:]:
        compile_folder(Path(name))
