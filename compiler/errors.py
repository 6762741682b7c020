"""Every mistake a user can make, one class each, with what to write instead."""

from __future__ import annotations

from typing import Any, ClassVar


class AttncError(Exception):
    """Base of all errors that attnc raises for wrong input.

    Subclasses give ``template``; keyword arguments fill it and stay readable as ``fields``.
    """

    template: ClassVar[str] = "{message}"

    def __init__(self, **fields: Any) -> None:
        super().__init__(self.template.format(**fields))
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[AttncError], fields: dict[str, Any]) -> AttncError:
    return cls(**fields)


class TraceError(AttncError):
    """A mask_mod or score_mod does something a kernel cannot do."""


class BranchOnTracedValueError(TraceError, TypeError):
    template = (
        "{location}: `{source}` needs the value of {expr}, which is known only inside the kernel. "
        "Use torch.where(condition, a, b) for a choice and & | ~ for and, or, not."
    )


class BlockSizeError(AttncError, ValueError):
    template = (
        "BLOCK_SIZE {block}: a kernel works on tiles of at least 16 x 16 that divide the block. "
        "Use a multiple of 16."
    )
