"""``check``: property-based testing of one mask_mod, score_mod or Kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from attnc.decorator import Kernel
from attnc.errors import CheckFailedError, NotCheckableError
from attnc.mods import Mod, mod_kind, mod_name, require_kind
from attnc.testing.ahead import Ahead
from attnc.testing.arguments import require_arguments
from attnc.testing.backends import available_backends
from attnc.testing.case import Case
from attnc.testing.laws import Failure, Law, chosen_laws
from attnc.testing.recipes import InputsRecipe, Limits, MaskRecipe, ScoreRecipe, Shape
from attnc.testing.report import CheckReport, Examined
from attnc.testing.reproduction import reproduction
from attnc.testing.search import random_inputs, smallest
from attnc.testing.subject import Subject

Checked = Mod | MaskRecipe | ScoreRecipe
OwnLaw = Callable[[Case], Any]
_PROVED_LENGTH = 8192
_WITHOUT_KERNELS = ("function", "tiles")


def check(
    f: Checked,
    *,
    expected: Mod | None = None,
    mask: Mod | MaskRecipe | None = None,
    score: Mod | ScoreRecipe | None = None,
    scale: float | None = None,
    laws: str | Sequence[str] | None = None,
    properties: str | Sequence[str | OwnLaw] = (),
    examples: int = 25,
    backends: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32",),
    gradients: bool = True,
    device: str | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
    at: InputsRecipe | None = None,
) -> CheckReport:
    """Looks for an input at which ``f`` or a kernel made from it is wrong.

    Every law that is not left out is examined at each random input, first those of the function,
    then those of kernels; ``attnc.testing.LAWS`` has them all. What is found is shrunk to the
    smallest input that shows it.

    Args:
        f: mask_mod (4 parameters), score_mod (5), Kernel, or a recipe of one.
        expected: What ``f`` ought to be: a function of the same parameters, in any style that
            runs on PyTorch's scalars. Without it, the law is that kernels do what ``f`` says.
        mask, score: What goes along with ``f``; those of a Kernel by default.
        scale: As in ``attnc.attention``.
        laws: Names of laws, also as one text with commas; all if None. ``no-NAME`` leaves one out.
        properties: What ``f`` promises besides: names of properties ("causal", "rows-nonempty",
            "symmetric", "monotone", "in-bounds", "equivariant-heads", "equivariant-batch"), and
            functions of a ``Case`` that raise AssertionError, or return False or what is wrong.
        examples: Number of random inputs.
        backends: "cpu", "triton"; all that run here if None, and none if empty.
        dtypes: Of q, k, v, drawn from these: "float32", "bfloat16", "float16", "float64".
        gradients: Whether kernels of the backward pass are built and examined.
        device: Where q, k, v are; by default where the captured tensors are.
        limits: Coordinates that ``f`` can bear. By default small ones, and where ``f`` indexes a
            captured tensor by a coordinate itself, those of the tensor.
        seed: Chooses other random inputs; they are the same ones at each call.
        at: Examine this input only, as reproductions do.

    Raises:
        CheckArgumentError: An argument is none of what it can be.
        CheckFailedError: with the smallest counterexample found, and how to reproduce it.
        LawNameError: There is no such law or property.
        NotCheckableError: the mask is a BlockMask, which holds for one length only.
        WrongModKindError: ``expected`` takes other parameters than ``f``.
    """
    require_arguments(
        mask=mask,
        score=score,
        scale=scale,
        laws=laws,
        properties=properties,
        dtypes=dtypes,
        backends=backends,
        gradients=gradients,
        device=device,
        limits=limits,
        examples=examples,
        seed=seed,
        at=at,
    )
    chosen = chosen_laws(laws, properties)
    subject = _subject(f, expected, mask, score, scale, backends, device, gradients)
    search = _Search(f, subject, chosen, {law.name: Examined(law.name) for law in chosen})
    # Inference tensors have no gradients, and the caller may be in that mode.
    with torch.inference_mode(False):
        if at is not None:
            search.examine(at)
        else:
            bounds = subject.limits(Limits()) if limits is None else limits
            # Proofs reach further than what can be tried: to windows of thousands of tokens.
            is_free = limits is None and bounds.length == Limits().length
            search.prove(replace(bounds, length=_PROVED_LENGTH) if is_free else bounds)
            search.run(list(random_inputs(bounds, dtypes, examples, seed)), bounds, dtypes)
    return search.report()


class _Search:
    """One check: what is examined, and what was seen of it so far."""

    def __init__(
        self,
        f: Checked,
        subject: Subject,
        laws: Sequence[Law],
        seen: dict[str, Examined],
    ) -> None:
        self.f, self.subject, self.laws, self.seen = f, subject, laws, seen
        self.n_examples = 0
        self.ahead: Ahead | None = None

    def report(self) -> CheckReport:
        name, backends = _name(self.f), self.subject.backends
        return CheckReport(name, self.n_examples, backends, tuple(self.seen.values()))

    def prove(self, bounds: Limits) -> None:
        """Decides laws for all inputs at once, where there is a proof or a counterexample."""
        for law in self.laws:
            proof = None if law.proof is None else law.proof(self.subject, bounds)
            if proof is None or proof.holds is None:
                continue
            if proof.holds:
                self.seen[law.name] = replace(self.seen[law.name], proof=proof.method)
                continue
            assert proof.counterexample is not None
            for shape in _shapes_with(proof.counterexample, bounds):
                self.examine(InputsRecipe(shape), [law])

    def examine(self, recipe: InputsRecipe, laws: Sequence[Law] | None = None) -> None:
        """Raises CheckFailedError if a law is broken at ``recipe``."""
        self.n_examples += 1
        broken = self.first_broken(recipe, laws)
        if broken is not None:
            raise self.failed(recipe, *broken)

    def first_broken(
        self, recipe: InputsRecipe, laws: Sequence[Law] | None = None
    ) -> tuple[Law, Failure] | None:
        case = Case(self.subject, recipe, self.ahead)
        for law in self.laws if laws is None else laws:
            is_vacuous = law.is_about_kernels and not case.backends
            if self.seen[law.name].proof or is_vacuous or not law.applies(case):
                continue
            self.seen[law.name] = self.seen[law.name].once_more()
            for failure in law.broken(case):
                return law, failure
        return None

    def run(self, inputs: Sequence[InputsRecipe], bounds: Limits, dtypes: Sequence[str]) -> None:
        """Examines inputs until a law is broken, and shrinks that one."""
        self.ahead = Ahead(bounds.length)
        # No kernel is built for a function that is wrong itself.
        own = [law for law in self.laws if law.family in _WITHOUT_KERNELS or law.proof]
        for laws in (own, [law for law in self.laws if law not in own]):
            if not laws:
                continue
            for number, recipe in enumerate(inputs, 1):
                self.n_examples = max(self.n_examples, number)
                found = self.first_broken(recipe, laws)
                if found is not None:
                    raise self.failed(*self._shrunk(recipe, *found, dtypes))

    def _shrunk(
        self, recipe: InputsRecipe, law: Law, failure: Failure, dtypes: Sequence[str]
    ) -> tuple[InputsRecipe, Law, Failure]:
        seen = dict(self.seen)
        failures = {recipe: failure}

        def shows_it(candidate: InputsRecipe) -> bool:
            found = self.first_broken(candidate, [law])
            if found is not None:
                failures[candidate] = found[1]
            return found is not None

        found = smallest(recipe, shows_it, dtypes)
        self.seen = seen  # what was tried to get there is no example
        return found, law, failures[found]

    def failed(self, recipe: InputsRecipe, law: Law, failure: Failure) -> CheckFailedError:
        shape = recipe.shape
        sizes = (
            f"B={shape.n_batch}, H={shape.n_heads}, Q_LEN={shape.n_queries}, KV_LEN={shape.n_keys}"
        )
        names = ("b", "h", "q_idx", "kv_idx")
        where = sizes
        if failure.point is not None:
            pairs = zip(names, failure.point, strict=False)
            where = ", ".join(f"{name}={value}" for name, value in pairs) + f" ({sizes})"
        seen = {**self.seen, law.name: replace(self.seen[law.name], is_broken=True)}
        return CheckFailedError(
            name=_name(self.f),
            law=law.sentence(failure),
            details=failure.details,
            where=where,
            point=failure.point,
            inputs=recipe,
            reproduction=reproduction(Case(self.subject, recipe), law, failure),
            report=CheckReport(
                _name(self.f), self.n_examples, self.subject.backends, tuple(seen.values())
            ),
        )


def _shapes_with(pair: Sequence[int | None], bounds: Limits) -> list[Shape]:
    """Small shapes that have the pair at which a proof failed, and what it is compared with."""
    b, h, q_idx, kv_idx = pair
    assert b is not None
    assert h is not None
    assert q_idx is not None
    n_keys = 1 if kv_idx is None else kv_idx + 1
    square = max(q_idx + 1, n_keys)
    lengths = [(q_idx + 1, n_keys), (q_idx + 2, n_keys), (square, square)]
    lengths.append((q_idx + 1, bounds.length))
    return [Shape(b + 1, h + 1, n_queries, n, n_kv_heads=1) for n_queries, n in lengths]


def _subject(
    f: Checked,
    expected: Mod | None,
    mask: Mod | MaskRecipe | None,
    score: Mod | ScoreRecipe | None,
    scale: float | None,
    backends: Sequence[str] | None,
    device: str | None,
    gradients: bool,
) -> Subject:
    mod = _built(f)
    if expected is not None:
        require_kind(expected, mod_kind(mod), "expected")
    options = getattr(mod, "options", {})
    mask_source: Any
    score_source: Any
    if mod_kind(mod) == "mask_mod":
        mask_source, score_source = f, score or getattr(mod, "score", None)
    else:
        mask_source, score_source = mask or getattr(mod, "mask", None), f
    if isinstance(mod, Kernel):  # what goes along with it was taken apart above
        mod = mod.mask if mod_kind(mod) == "mask_mod" else mod.score
    built_mask = _built(mask_source) if mask_source is not f else mod
    if built_mask is not None and not callable(built_mask):
        raise NotCheckableError(name=_name(f), kind=type(built_mask).__name__)
    subject = Subject(
        mask=built_mask,
        score=_built(score_source) if score_source is not f else mod,
        scale=options.get("scale") if scale is None else scale,
        expected=expected,
        backends=(),
        with_gradients=gradients,
        mask_source=mask_source,
        score_source=score_source,
    )
    place = subject.captured_device() if device is None else device
    chosen = available_backends(place) if backends is None else tuple(backends)
    return replace(subject, device=place, backends=chosen)


def _name(f: Any) -> str:
    return repr(f) if isinstance(f, MaskRecipe | ScoreRecipe) else mod_name(f)


def _built(f: Any) -> Any:
    return f.build() if isinstance(f, MaskRecipe | ScoreRecipe) else f
