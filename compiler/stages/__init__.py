"""Every stage of a compilation: what was traced, understood, decided and generated."""

from attnc.stages.inspection import Inspection
from attnc.stages.machines import DTYPES, MACHINES
from attnc.stages.stage import STAGES, Language, Pass, Stage

__all__ = ["DTYPES", "MACHINES", "STAGES", "Inspection", "Language", "Pass", "Stage"]
