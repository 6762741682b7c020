"""Toolkit: checking and inspecting."""

from __future__ import annotations

from attnc.errors.base import AttncError


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


class CheckArgumentError(AttncError, ValueError, TypeError):
    template = "check({argument}={value!r}): {problem}."


class LawNameError(AttncError, ValueError):
    template = "check({argument}=...) got {name!r}: use one of {known}."


class InspectionOptionError(AttncError, ValueError):
    template = "{option} {value!r}: {problem}"


class ProofArgumentError(AttncError, ValueError):
    template = "attnc.prove.{function}({name}={value!r}): {problem}."


class NotExportableError(AttncError, ValueError):
    template = "{name} cannot be exported: {problem}."


class BenchmarkError(AttncError, ValueError):
    template = "{name} cannot be timed: {problem}."
