"""Loop bounds in closed form: a mask solved for ``kv_idx``, as sympy expressions."""

from attnc.bounds.closed_form import ClosedForm, TokenInterval
from attnc.bounds.printer import print_bound
from attnc.bounds.runs import BlockRun
from attnc.bounds.solver import solve

__all__ = ["BlockRun", "ClosedForm", "TokenInterval", "print_bound", "solve"]
