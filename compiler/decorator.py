"""``kernel``: the decorator that makes an attention kernel of a mask_mod or score_mod."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

import torch

from attnc.attend import attention
from attnc.errors import (
    KernelCallError,
    KernelFunctionError,
    KernelOperatorError,
    WrongModKindError,
)
from attnc.errors.base import described
from attnc.mods import Kind, Mod, mod_kind, mod_name, require_alone, require_kind

if TYPE_CHECKING:
    from attnc.analysis import Analysis


class Kernel:
    """A mask_mod or score_mod that is also the attention kernel made from it.

    ``f(q, k, v)`` runs it, with the keywords of ``attnc.attention``; ``f(b, h, q_idx, kv_idx)`` and
    ``s(score, b, h, q_idx, kv_idx)`` call the function, so a Kernel serves wherever a mod does.
    Masks combine with ``f & g``, ``f | g`` and ``~f``, scores with ``s.then(t)`` and
    ``s.where(mask)``.

    Attributes:
        fn: The user's function.
        kind: "mask_mod" or "score_mod".
        mask: The mask that running applies, or None.
        score: The score_mod that running applies, or None.
        options: Keywords of ``attnc.attention`` that hold for every run.
    """

    def __init__(
        self,
        fn: Mod,
        *,
        mask: Any | None = None,
        score: Mod | None = None,
        **options: Any,
    ) -> None:
        kind = mod_kind(fn)
        if kind == "mask_mod":
            if mask is not None:
                raise _role_taken(fn, kind, "mask", "score_mod")
            mask = fn
        else:
            if score is not None:
                raise _role_taken(fn, kind, "score", "mask_mod")
            score = fn
        if score is not None:
            require_kind(score, "score_mod", "score")
        for part, role in ((mask, "mask"), (score, "score")):
            require_alone(part, role)
        self.fn = fn
        self.kind: Kind = kind
        self.mask = mask
        self.score = score
        self.options = options
        # Pickle finds no function that a function made: (callable, arguments) to make it anew.
        self._made_by: tuple[Callable[..., Kernel], tuple[Any, ...]] | None = None
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own_role = "mask" if self.kind == "mask_mod" else "score"
        are_inputs = all(isinstance(a, torch.Tensor) and a.dim() == 4 for a in args)
        if len(args) == 3 and are_inputs and own_role not in kwargs:
            parts = {"mask": self.mask, "score": self.score}
            return attention(*args, **{**parts, **self.options, **kwargs})
        if not kwargs and len(args) == (4 if self.kind == "mask_mod" else 5):
            return self.fn(*args)
        raise KernelCallError(
            name=mod_name(self.fn),
            given=", ".join([*(_shown(a) for a in args), *(f"{name}=..." for name in kwargs)]),
            role=own_role,
            own="b, h, q_idx, kv_idx" if self.kind == "mask_mod" else "score, b, h, q_idx, kv_idx",
        )

    def then(self, other: Mod) -> Kernel:
        """The score_mod that applies this one first, ``other`` to its result."""
        if self.kind != "score_mod":
            self._refuse("then", other)
        require_kind(other, "score_mod", "the argument of then")
        require_alone(other, "the argument of then")
        first = self.fn

        def then(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return other(first(score, b, h, q_idx, kv_idx), b, h, q_idx, kv_idx)

        return Kernel(then, mask=self.mask, **self.options)._as_made(Kernel.then, self, other)

    def where(self, mask: Any) -> Kernel:
        """The same score, seen only where ``mask`` (and the mask so far) holds."""
        if self.kind != "score_mod":
            self._refuse("where", mask)
        require_kind(mask, "mask_mod", "the argument of where")
        require_alone(mask, "the argument of where")
        both = mask if self.mask is None else Kernel(self.mask) & mask
        made = Kernel(self.fn, mask=both, **self.options)
        return made if self._made_by is None else made._as_made(Kernel.where, self, mask)

    def __and__(self, other: Any) -> Kernel:
        other_fn = self._operand("&", other)

        def both(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return self.fn(b, h, q_idx, kv_idx) & other_fn(b, h, q_idx, kv_idx)

        return self._combined(both)._as_made(operator.and_, self, other)

    def __or__(self, other: Any) -> Kernel:
        other_fn = self._operand("|", other)

        def either(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return self.fn(b, h, q_idx, kv_idx) | other_fn(b, h, q_idx, kv_idx)

        return self._combined(either)._as_made(operator.or_, self, other)

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self) -> Kernel:
        if self.kind != "mask_mod":
            self._refuse("~", None)

        def inverse(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            value = self.fn(b, h, q_idx, kv_idx)
            return not value if isinstance(value, bool) else ~value

        return self._combined(inverse)._as_made(operator.invert, self)

    def _combined(self, fn: Mod) -> Kernel:
        return Kernel(fn, score=self.score, **self.options)

    def _as_made(self, function: Callable[..., Any], *arguments: Any) -> Kernel:
        self._made_by = (function, arguments)
        return self

    def _operand(self, operator: str, other: Any) -> Mod:
        if self.kind != "mask_mod" or not callable(other) or mod_kind(other) != "mask_mod":
            self._refuse(operator, other)
        if _parts_of(other) != _parts_of(self):
            require_alone(other, f"an operand of {operator}")
        return getattr(other, "fn", other)  # type: ignore[no-any-return]

    @property
    def other_parts(self) -> tuple[str, ...]:
        """What running applies besides the function, where it changes the result."""
        other = self.score if self.kind == "mask_mod" else self.mask
        named = () if other is None else (f"a {'score' if self.kind == 'mask_mod' else 'mask'}",)
        scale = self.options.get("scale")
        return named if scale is None else (*named, f"scale={scale}")

    def _refuse(self, operator: str, other: Any) -> NoReturn:
        names = [mod_name(self.fn)] if other is None else [mod_name(self.fn), _shown(other)]
        raise KernelOperatorError(operator=operator, operands=" and ".join(names))

    @property
    def ir(self) -> str:
        """The simplified intermediate representation, as text."""
        from attnc.stages import Inspection

        return Inspection.of(self).ir()

    def explain(self, *, shape: tuple[int, int, int, int, int] = (1, 1, 1024, 1024, 64)) -> str:
        """What attnc understood and decided: all stages before the kernel, as text.

        Args:
            shape: (B, H, n_queries, n_keys, head_dim).
        """
        from attnc.stages import Inspection

        return Inspection.of(self, shape=shape).explain()

    def source(self, target: str = "cpu") -> str:
        """The generated kernel, C++ or Triton.

        Args:
            target: "cpu" gives C++ for this machine; "triton", "sm_80", "sm_90", "sm_100" and
                "gfx942" give Triton.

        Raises:
            InspectionOptionError: No such target.
        """
        from attnc.stages import Inspection

        return Inspection.of(self, target=target).source()

    def report(
        self,
        path: str | Path,
        *,
        shape: tuple[int, int, int, int, int] = (1, 1, 1024, 1024, 64),
        target: str = "cpu",
        dtype: str | None = None,
        measure: bool = False,
        stages: Collection[str] | None = None,
    ) -> Path:
        """Writes one HTML page about the kernel: mask, stages, cost; gives its path.

        ``path``, ``shape``, ``target``, ``dtype``, ``measure``, ``stages`` and errors are those of
        ``attnc.report.write``.
        """
        from attnc.report import write

        return write(
            self, path, shape=shape, target=target, dtype=dtype, measure=measure, stages=stages
        )

    def analyze(
        self,
        Q_LEN: int,
        KV_LEN: int,
        *,
        B: int | None = None,
        H: int | None = None,
        BLOCK_SIZE: int | tuple[int, int] = 128,
    ) -> Analysis:
        """The tiles of the mask; all are FULL for a score without one.

        ``Q_LEN``, ``KV_LEN``, ``B``, ``H``, ``BLOCK_SIZE`` and errors are those of
        ``attnc.analyze``.
        """
        from attnc.analysis import analyze
        from attnc.mods import noop_mask

        mask = noop_mask if self.mask is None else self.mask
        return analyze(mask, B, H, Q_LEN, KV_LEN, BLOCK_SIZE)

    def __repr__(self) -> str:
        return f"<attnc.Kernel {mod_name(self.fn)} ({self.kind})>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Kernel:
        return self._copy()

    def __copy__(self) -> Kernel:
        return self._copy()

    def _copy(self) -> Kernel:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __reduce__(self) -> Any:
        # A decorated function is found again by its name, as any function is by pickle.
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        if self._made_by is not None:
            return self._made_by
        mask = None if self.kind == "mask_mod" else self.mask
        score = None if self.kind == "score_mod" else self.score
        return (_rebuild, (self.fn, mask, score, self.options))


def _refused(operator: str) -> Callable[[Kernel, Any], NoReturn]:
    def refuse(self: Kernel, other: Any = None) -> NoReturn:
        self._refuse(operator, other)

    return refuse


for _name, _operator in {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "matmul": "@",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
}.items():
    setattr(Kernel, f"__{_name}__", _refused(_operator))
    setattr(Kernel, f"__r{_name}__", _refused(_operator))
for _name, _operator in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "neg": "-"}.items():
    setattr(Kernel, f"__{_name}__", _refused(_operator))


def _rebuild(fn: Mod, mask: Any, score: Mod | None, options: dict[str, Any]) -> Kernel:
    return Kernel(fn, mask=mask, score=score, **options)


def _parts_of(mod: Any) -> tuple[Any, ...]:
    """The mod and the scale that a mask runs with; nothing for a plain function."""
    return (getattr(mod, "score", None), getattr(mod, "options", {}).get("scale"))


def _role_taken(fn: Mod, kind: Kind, role: str, wanted: Kind) -> WrongModKindError:
    return WrongModKindError(
        name=mod_name(fn),
        kind=kind,
        n_parameters=4 if kind == "mask_mod" else 5,
        role=f"a function decorated with {role}=",
        wanted=wanted,
    )


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "a nested tensor" if value.is_nested else f"tensor{tuple(value.shape)}"
    return mod_name(value) if callable(value) else repr(described(value))


@overload
def kernel(fn: Mod, /) -> Kernel: ...
@overload
def kernel(
    *, mask: Any | None = None, score: Mod | None = None, **options: Any
) -> Callable[[Mod], Kernel]: ...
def kernel(
    fn: Mod | None = None,
    /,
    *,
    mask: Any | None = None,
    score: Mod | None = None,
    **options: Any,
) -> Kernel | Callable[[Mod], Kernel]:
    """Makes an attention kernel of a function over attention indices; bare or with arguments.

    Args:
        fn: 4 parameters without default, ``(b, h, q_idx, kv_idx)``: a mask_mod; 5,
            ``(score, b, h, q_idx, kv_idx)``: a score_mod.
        mask: For a score_mod, the mask (function or BlockMask) it runs with.
        score: For a mask_mod, the score_mod it runs with.
        options: ``scale``, ``enable_gqa``, ``layout``, ``backend``, ``strict`` as in ``attnc.attention``.

    Raises:
        ModSignatureError: The function has another number of parameters.
        TypeError: An option that ``attnc.attention`` does not have.
    """
    for name in options:
        if name not in ("scale", "enable_gqa", "return_lse", "layout", "backend", "strict"):
            raise TypeError(
                f"kernel() has no option {name!r}; it takes mask, score, scale, enable_gqa, "
                "return_lse, layout, backend and strict"
            )
    if fn is not None:
        return Kernel(fn, mask=mask, score=score, **options)

    def decorate(*functions: Any) -> Kernel:
        if len(functions) != 1:
            raise KernelFunctionError(given=", ".join(map(_shown, functions)))
        return Kernel(functions[0], mask=mask, score=score, **options)

    return decorate
