"""Training under a scheme, so that its accuracy stands beside its cycles: a plain loop that can be killed and resumed.

Every random number of a training depends on its seed and the number of the epoch or step alone. A resumed training
therefore ends in the same bits as one that was never interrupted, on the same machine with the same threads.
"""

from .capture import CapturedStep, capture_step
from .deployed import Deployed, Evaluated, deploy
from .loop import resume, train, trained
from .model import new_model, step_workload
from .plan import plan
from .robustness import accuracy_under_corruption
from .run import CHECKPOINT, LOG, RESULT
from .signs import BinaryLayer, binary_layers
from .spec import AMP, EpochLog, TrainResult, TrainSpec, to_dict
from .subnets import SUBNETS, accuracies, accuracy_of

__all__ = [
    "AMP",
    "CHECKPOINT",
    "LOG",
    "RESULT",
    "SUBNETS",
    "BinaryLayer",
    "CapturedStep",
    "Deployed",
    "EpochLog",
    "Evaluated",
    "TrainResult",
    "TrainSpec",
    "binary_layers",
    "accuracies",
    "accuracy_of",
    "accuracy_under_corruption",
    "capture_step",
    "deploy",
    "new_model",
    "plan",
    "resume",
    "step_workload",
    "to_dict",
    "train",
    "trained",
]
