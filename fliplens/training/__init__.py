"""Training: where it starts, the loop, its state, the checkpoints of that state and the log of its progress."""

from fliplens.training.checkpoint import Checkpoint
from fliplens.training.log import FolderLog, JsonLines, MetricsWriter, TensorBoard
from fliplens.training.loop import TrainResult, train
from fliplens.training.state import PassRecord, TrainState

__all__ = [
    "Checkpoint",
    "FolderLog",
    "JsonLines",
    "MetricsWriter",
    "PassRecord",
    "TensorBoard",
    "TrainResult",
    "TrainState",
    "train",
]
