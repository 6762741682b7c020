"""Every stage of a compilation: what was traced, understood, decided and generated."""

from attnc.checks import DTYPES
from attnc.stages.inspection import Inspection
from attnc.stages.machines import MACHINES
from attnc.stages.stage import PASSES, STAGES, Language, Pass, Stage

__all__ = ["DTYPES", "MACHINES", "PASSES", "STAGES", "Inspection", "Language", "Pass", "Stage"]
