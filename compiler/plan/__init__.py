"""The one place of decisions: from what is static about a call to everything a kernel does.

A ``Spec`` says what is asked, and is cheap: it is the key of the cache. A ``Plan`` says how it is
done; making one may import sympy, so it is made on a cache miss only. Templates only follow it.
"""

from attnc.plan.decide import make_plan
from attnc.plan.masks import PartialMasks, Term
from attnc.plan.record import Accumulation, Decision, Plan
from attnc.plan.spec import Spec, Wanted

__all__ = [
    "Accumulation",
    "Decision",
    "PartialMasks",
    "Plan",
    "Spec",
    "Term",
    "Wanted",
    "make_plan",
]
