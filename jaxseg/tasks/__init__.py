"""What is learnt and how it is judged: classification, segmentation, or both at once.

A task is pure. On the device: `losses` per example and `counts`, arrays with leading
dimension N. On the host, over the whole set: `choose_thresholds` from the counts of the
validation set, then `summarize` and `rows` at those thresholds. Two classes make a
binary task with one logit; more classes a softmax, whose decision needs no threshold.
"""

from jaxseg.tasks.basic import (
    NUM_BINS,
    Classification,
    Counts,
    Task,
    Thresholds,
    classification,
    joint,
    num_outputs,
    segmentation,
)
from jaxseg.tasks.segdec import segdec

__all__ = [
    "NUM_BINS",
    "TASKS",
    "Classification",
    "Counts",
    "Task",
    "Thresholds",
    "classification",
    "joint",
    "num_outputs",
    "segdec",
    "segmentation",
]

TASKS = {
    "classification": classification,
    "segmentation": segmentation,
    "joint": joint,
    "segdec": segdec,
}
