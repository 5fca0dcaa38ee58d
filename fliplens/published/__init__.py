"""The published code's own files and calls: `datasets.yaml`, training YAML, evaluation flags, result files.

Everything here translates to the types of the library and back; nothing is computed that the library does not.
"""

from fliplens.published.datasets import Dataset, read_datasets
from fliplens.published.evaluation import DatasetEvaluation, evaluate_dataset, write_results
from fliplens.published.training import FitJob, is_training_yaml, read_training_yaml

__all__ = [
    "Dataset",
    "DatasetEvaluation",
    "FitJob",
    "evaluate_dataset",
    "is_training_yaml",
    "read_datasets",
    "read_training_yaml",
    "write_results",
]
