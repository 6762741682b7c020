"""Calls of ``attnc.prove`` and ``attnc.testing``."""

from __future__ import annotations

_SIZES = "B=<1>, H=<1>, Q_LEN=<64>, KV_LEN=<64>, budget=<1000>"

CALLS = {
    **{
        f"prove.{name}": f"prove.{name}(<mask:causal>, {_SIZES})"
        for name in ("causal", "rows_nonempty", "symmetric", "monotone")
    },
    **{
        f"prove.{name}": f"prove.{name}(<mask:causal>, other=<causal>, {_SIZES})"
        for name in ("implies", "equal")
    },
    "prove.in_bounds": f"prove.in_bounds(<mod:causal>, {_SIZES})",
    "prove.monotone2": "prove.monotone(causal, longer=<causal>, Q_LEN=20)",
    "testing.check": (
        "attnc.testing.check(causal, dtypes=<('float32',)>, backends=<()>, device=<'cpu'>, "
        "limits=<None>, examples=<1>, seed=<None>, at=<None>, laws='tiles')"
    ),
}
