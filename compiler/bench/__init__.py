"""Benchmarks of one function against PyTorch's own ways to compute it.

>>> from attnc import library
>>> from attnc.bench import PEERS, Problem, contestants, hold, table
>>> sizes = {"n_batch": 1, "n_heads": 2, "kv_heads": 2, "n_queries": 256, "n_keys": 256}
>>> problem = Problem(library.causal(), **sizes, head_dim=32)
>>> result = hold(problem, contestants(problem, PEERS), enough_s=10.0)
>>> print(table(result))  # doctest: +SKIP

All are compared with float64 first; what is wrong is not timed.
"""

from attnc.bench.contest import Entry, Peak, Ratio, Result, hold
from attnc.bench.contestants import PEERS, Absent, Contestant, contestants
from attnc.bench.measure import Times
from attnc.bench.problem import Error, Problem
from attnc.bench.report import table

__all__ = [
    "PEERS",
    "Absent",
    "Contestant",
    "Entry",
    "Error",
    "Peak",
    "Problem",
    "Ratio",
    "Result",
    "Times",
    "contestants",
    "hold",
    "table",
]
