"""Property test: an off-by-one in a mask is found and shrunk to an example that can be pasted.

    attnc check examples/property_test.py:window --expected examples/property_test.py:meant

finds it, too. Without ``expected`` a check is that kernels do what the function says; with it,
also that the function says what was meant: "a token sees itself and the 31 before it".
"""

from __future__ import annotations

import attnc
from attnc.errors import CheckFailedError
from attnc.testing import check

WINDOW = 32


def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)  # the mistake: <= in place of <


def meant(b, h, q_idx, kv_idx):
    distance = q_idx - kv_idx
    return (distance >= 0) & (distance < WINDOW)


def sees_itself(case):
    """every query sees the key at its own place"""
    assert case.visible.diagonal(dim1=2, dim2=3).all()


def main() -> None:
    try:
        check(window, expected=meant)
    except CheckFailedError as error:
        print(error)
        _, _, q_idx, kv_idx = error.fields["point"]
    else:
        raise AssertionError("the mistake was not found")
    # The smallest pair on which both disagree: no query before 32 has a key so far away.
    assert (q_idx, kv_idx) == (WINDOW, 0)
    print(f"Found: query {q_idx} sees key {kv_idx}, {q_idx - kv_idx} tokens before it.")

    fixed = attnc.kernel(lambda b, h, q, kv: (q >= kv) & (q - kv < WINDOW))
    report = check(fixed, expected=meant, properties=["causal", sees_itself], examples=10)
    print(f"{report}\n{report.table()}")


if __name__ == "__main__":
    main()
