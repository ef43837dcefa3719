"""One loop for every variant, its optimizer and its health gate."""

from saelab.train.health import Health, NonFiniteTraining, UnhealthyRun
from saelab.train.loop import Progress, Trained, Training
from saelab.train.member import Record

__all__ = [
    "Health",
    "NonFiniteTraining",
    "Progress",
    "Record",
    "Trained",
    "Training",
    "UnhealthyRun",
]
