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


class CacheFullError(AttncError, OSError):
    template = (
        "There is no room for a compiled kernel: {root} cannot be written to ({reason}), and no "
        "temporary folder either. Free some space, or set ATTNC_CACHE_DIR to a folder with room."
    )


class KernelLoadError(AttncError, OSError):
    template = (
        "{library} was just built, but cannot be loaded: {reason}. Set CXX to a compiler for this "
        "machine and its C library."
    )


class InstructionSetError(AttncError, RuntimeError):
    template = (
        "A kernel with {isa} instructions cannot run on this machine, which has {runnable}. Ask "
        "for one of these."
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
