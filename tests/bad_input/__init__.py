"""Public calls as text, each argument with a right value, and values that are wrong for most."""

from __future__ import annotations

from bad_input import attention, block_masks, inspection, interchange, library, orders, questions
from bad_input.call import Call

CALLS = tuple(
    Call.of(name, text)
    for module in (attention, inspection, block_masks, questions, orders, interchange, library)
    for name, text in module.CALLS.items()
)
