"""What a person who trains can mend: printed without a traceback, exit status 1."""

from __future__ import annotations


class TrainingError(Exception):
    """The command cannot go on, and says what was expected and what was found."""


class RecipeError(TrainingError):
    """The recipe is no valid recipe."""


class DataError(TrainingError):
    """The folder is no data set to train on."""


class ExportError(TrainingError):
    """The exported graph does not answer as the network that was trained."""


class PublishError(TrainingError):
    """The version cannot be published."""


class CacheError(TrainingError):
    """The folder for intermediate results cannot be used."""


class WeightsError(TrainingError):
    """Pretrained weights, or the classes that they tell apart, cannot be had or do not fit."""


class VersionError(TrainingError):
    """The folder is no published version, or not one that can answer here."""
