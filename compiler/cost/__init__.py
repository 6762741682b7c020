"""What one call of a kernel takes: tiles, operations, bytes, and the seconds that these predict."""

from attnc.cost.model import Problem, backward_target, cost_of
from attnc.cost.rates import Rates, rates_of
from attnc.cost.record import Cost

__all__ = ["Cost", "Problem", "Rates", "backward_target", "cost_of", "rates_of"]
