"""Cache and compilers: what the machine lacks or forbids."""

from __future__ import annotations

from attnc.errors.base import AttncError


class CacheWarning(UserWarning):
    """The disk cache works, but not as configured."""


class CacheDirectoryError(AttncError, OSError):
    template = (
        "{root} cannot hold compiled kernels: it {problem}, and code from it would be run. "
        "{remedy}."
    )


class CacheNoExecError(AttncError, OSError):
    template = (
        "{root} is mounted noexec, so a compiled kernel cannot be loaded from it. Set "
        "ATTNC_CACHE_DIR to a folder on another file system."
    )


class NoCompilerWarning(UserWarning):
    """Attention runs tile by tile in torch operations, for want of a C++ compiler."""


class NoCompilerError(AttncError, RuntimeError):
    template = (
        "no C++ compiler found (tried {tried}). Install one, for example g++, or set CXX to its "
        "command."
    )


class CompilerError(AttncError, RuntimeError):
    template = (
        "the C++ compiler {problem}. Run `attnc doctor`, or set CXX to another one; its command "
        "and output were:\n{command}\n{output}"
    )


class OfflineCompileError(AttncError, RuntimeError):
    template = "Triton cannot compile the kernel for {target}. Its output ends with:\n{output}"


class ToolMissingError(AttncError, RuntimeError):
    template = "{tool}, which {purpose}, is missing: {problem}. {remedy}"


class HeadTooWideError(AttncError, ValueError):
    template = (
        "Heads of width {width} in {dtype} do not fit into {target}: the smallest tiles take "
        "{needed} KiB of its {limit} KiB of shared memory. Use narrower heads or a smaller dtype."
    )


class InterpreterNotActiveError(AttncError, RuntimeError):
    template = (
        "A Triton kernel was asked for on CPU tensors, but Triton was imported without its "
        "interpreter. Set TRITON_INTERPRET=1 in the environment before Python starts."
    )
