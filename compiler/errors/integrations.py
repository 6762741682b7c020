"""Integrations: models of transformers."""

from __future__ import annotations

from attnc.errors.base import AttncError


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


class AttentionNameError(AttncError, ValueError):
    template = (
        "register(name={name!r}): {problem}. Give a name of your own, as the default 'attnc'."
    )
