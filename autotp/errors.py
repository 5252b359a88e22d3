"""Every error autotp raises on purpose. A message says what is wrong, where, and what to do."""


class AutoTPError(Exception):
    """The root: catch this to catch everything autotp raises about its input."""


class CaptureError(AutoTPError):
    """The model cannot be turned into a graph, or the model file is not one."""


class RuleError(AutoTPError):
    """An operator has no rule, or its rule does not fit the call it was asked about."""


class ProfileError(AutoTPError):
    """A cluster or device profile is missing, malformed, or too small for the mesh."""


class PlanError(AutoTPError):
    """A plan is corrupt, of another version, or made for another model, mesh or mode."""


class InfeasibleError(AutoTPError):
    """No plan fits the memory limit. The message says by how many bytes, on which device, and what would fit."""


class VerificationError(AutoTPError):
    """The sharded module could not be compared with the whole one, or a rank of it died."""


class RebalanceError(AutoTPError):
    """A running module could not be moved to another plan; it and its optimizer are as they were."""


class SolverError(AutoTPError):
    """A limit of time or of nodes stopped the solver before it found any plan."""
