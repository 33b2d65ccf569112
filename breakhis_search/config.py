"""What a study is, checked: the shape of ``experiments/*.yaml``.

:mod:`breakhis_search.study_file` reads the file; this module only says what may stand in it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from breakhis_search.own_code import is_own_name

SCHEMA_VERSION = 2
"""Part of a study's identity: raise it when scores of old and new studies cannot be compared."""

Scalar = bool | int | float | str
ObjectiveName = Literal["auroc", "balanced_accuracy"]

_FLOOR_METRIC = re.compile(
    r"(magnification_(40|100|200|400)/)?("
    r"(image|patient|patient_mean_logit)/(accuracy|balanced_accuracy|mcc"
    r"|(precision|recall|f1)_[a-z_]+|(auroc|average_precision)(_[a-z_]+)?)"
    r"|patient/recognition_rate"
    r"|patient_majority_vote/(accuracy|balanced_accuracy|mcc|f1_macro|precision_macro|recall_[a-z_]+))"
)
"""Metrics of :mod:`breakhis_search.evaluation.metrics` of which more is better."""

_LOCKED_METRIC = re.compile(
    r"(image|patient)/(sensitivity|specificity|ppv|npv)(_at_(half|youden|sensitivity_95))?"
)
"""Metrics at locked thresholds. They are locked on the out-of-fold predictions, where they would be
scored on what they were chosen by: the sealed test alone has them."""

_WHERE = {"floors": "out-of-fold", "sealed_floors": "of the sealed test"}

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str | float | None) -> float | None:
    """Return seconds from ``90``, ``90s``, ``15m``, ``2h``, ``1h30m`` or ``1d``.

    >>> parse_duration("1h30m")
    5400.0
    """
    if text is None or isinstance(text, (int, float)):
        return None if text is None else float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if parts and re.fullmatch(r"(?:\s*\d+(?:\.\d+)?\s*[smhd])+\s*", text):
        return float(sum(float(number) * _UNITS_S[unit] for number, unit in parts))
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    message = f"a duration such as 90s, 15m, 2h or 1h30m is expected, received {text!r}"
    raise ValueError(message)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DataConfig(_Section):
    """Which images, at what size."""

    root: str | None = None
    magnification: Literal["all", 40, 100, 200, 400] = "all"
    height_px: int = Field(default=224, ge=32, le=460)
    width_px: int = Field(default=336, ge=32, le=700)
    on_bad_image: Literal["error", "skip"] = "error"


class ProtocolConfig(_Section):
    """How the study is scored; see :class:`breakhis_search.data.splits.Protocol`."""

    kind: Literal["folds", "holdout", "image", "official"] = "folds"
    folds: int = Field(default=3, ge=2, le=20)
    seed: int = Field(default=0, ge=0)
    validation_accessions: tuple[str, ...] = ()
    group_by: Literal["accession", "slide"] = "accession"
    sealed_test: Literal["auto", "none"] = "auto"
    on_single_accession_type: Literal["error", "train_only", "drop"] = "error"
    folds_file: str | None = Field(default=None, exclude=True)
    """Where the official folds are, if not beside the images. A path is no part of a study's
    identity and is not dumped with it: the split's digest says what the file held."""

    @property
    def leaks(self) -> bool:
        """Whether patients may stand on both sides of a fold."""
        return self.kind == "image" or self.group_by != "accession"

    @property
    def unregistrable_because(self) -> str | None:
        """Why no model of this protocol is ever registered, in words; ``None`` if it may be."""
        if self.leaks:
            return "the protocol leaks patients: its models are never registered"
        if self.kind == "official":
            return (
                "the official protocol seals no patient and serves comparison with the literature:"
                " its models are never registered"
            )
        return None

    @field_validator("validation_accessions", mode="before")
    @classmethod
    def _read_as_text(cls, names: Any) -> Any:
        """YAML reads an accession without its year as a number."""
        return [str(n) for n in names] if isinstance(names, list | tuple) else names

    @model_validator(mode="after")
    def _named_things_fit_the_kind(self) -> ProtocolConfig:
        if (self.kind == "holdout") != bool(self.validation_accessions):
            message = "validation_accessions must be named for kind: holdout, and only there"
            raise ValueError(message)
        if self.folds_file is not None and self.kind != "official":
            message = "folds_file is for kind: official only"
            raise ValueError(message)
        return self


class ModelConfig(_Section):
    """Pretrained weights, and arguments of HyperModels of your own."""

    weights: Literal["imagenet", "none"] = "imagenet"
    arguments: dict[str, dict[str, Any]] = {}
    """By ``module:Class``: keyword arguments for its constructor."""


class FeaturesConfig(_Section):
    """The views of each image whose features a frozen backbone gives once; see data.views."""

    levels: int = Field(default=3, ge=2, le=11)
    """Augmentation strengths, evenly spaced from 0 to 1."""
    per_level: int = Field(default=2, ge=1, le=64)


class TrainingConfig(_Section):
    """How long and how one fold is trained."""

    max_epochs: int = Field(default=30, ge=1, le=1000)
    head_epochs: int = Field(default=5, ge=0, le=1000)
    """Epochs with a frozen backbone before fine-tuning (counted within max_epochs)."""
    patience: int = Field(default=6, ge=1)
    batch_size: Annotated[int, Field(ge=2, le=4096)] | Literal["auto"] = 32
    """Images per step. ``auto``: as many as a GPU is best used with, found by a short probe of each
    architecture and the same for all trials of the study; 32 on a CPU."""
    features: FeaturesConfig | None = FeaturesConfig()
    """``null``: a frozen backbone sees newly augmented images every epoch, at many times the cost.
    """
    mixed_precision: Literal["auto", "off"] = "auto"
    deterministic: bool = False

    @model_validator(mode="after")
    def _head_epochs_fit(self) -> TrainingConfig:
        if self.head_epochs >= self.max_epochs:
            message = (
                f"head_epochs ({self.head_epochs}) must be below max_epochs ({self.max_epochs})"
            )
            raise ValueError(message)
        return self


class SearchConfig(_Section):
    """Budget, sampler and pruner."""

    trials: int = Field(default=40, ge=1, le=100_000)
    timeout: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_duration)] = None
    """No new trial is begun when a run has lasted so long."""
    device_hours: float | None = Field(default=None, gt=0)
    """No new trial is begun when all trials together have trained for so many hours."""
    patience: int | None = Field(default=None, ge=1)
    """No new trial is begun when so many in a row have not beaten the best one."""
    target: float | None = Field(default=None, allow_inf_nan=False)
    """No new trial is begun when one has reached this score."""
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    """``median``: below the median of its stage, by the mean over the folds so far.
    ``hyperband``: successive halving by epochs (Li et al., JMLR 18, 2018), for a study of one
    fold."""
    startup_trials: int = Field(default=8, ge=1)
    """Random trials before the sampler models anything; complete ones before anything is pruned."""
    seed: int = Field(default=0, ge=0)
    attempts: int = Field(default=3, ge=1)
    """How often a trial may take its process with it before it counts as failed."""
    models_kept: int = Field(default=5, ge=0)
    """A trial's model is kept when its score is, at its end, among the best so many of the search.
    Finalists and the refit keep theirs anyway."""


class Range(_Section):
    """``{low, high, log, step}``: bounds of a number."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _right_way_up(self) -> Range:
        if self.low > self.high:
            message = f"low must not exceed high, received low={self.low:g}, high={self.high:g}"
            raise ValueError(message)
        if self.log and self.low <= 0:
            message = f"a log range needs low > 0, received low={self.low:g}"
            raise ValueError(message)
        if self.log and self.step:
            message = "log and step exclude each other; list the choices instead: [8, 16, 32]"
            raise ValueError(message)
        return self


class StagesConfig(_Section):
    """The search in two stages: many frozen backbones, then fine-tuning from the best of them."""

    probe_share: float = Field(default=0.67, gt=0, lt=1)
    """Of the trials of the search: a head on stored features takes moments."""
    tune_from: int = Field(default=3, ge=0)
    """How many of the best probes are the first to be fine-tuned."""


class FinalistsConfig(_Section):
    """Which configurations are trained again on several seeds before anything is selected."""

    count: int = Field(default=3, ge=1, le=100)
    seeds: int = Field(default=3, ge=1, le=100)


class SelectionConfig(_Section):
    """When two finalists are called tied."""

    margin: float = Field(default=0.01, ge=0, le=1)
    """Of the objective: a finalist further below the best is not tied, whatever the test says."""
    alpha: float = Field(default=0.05, gt=0, lt=1)


class RegistrationConfig(_Section):
    """What a model must reach before it may be called champion."""

    floors: dict[str, float] = {}
    """Metric name (such as ``patient/auroc``) → least value, out-of-fold."""
    sealed_floors: dict[str, float] = {}
    """The same on the sealed test, when a promotion opens it; also ``image/sensitivity`` and its
    kin at the thresholds of :mod:`breakhis_search.evaluation.thresholds`."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Of the test by which a challenger must be better than the champion."""
    non_inferiority_margin: float = Field(default=0.05, ge=0, le=1)
    """Of the objective on the sealed test: how far below the champion a challenger may be."""

    @field_validator("floors", "sealed_floors")
    @classmethod
    def _metrics_exist(cls, floors: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        unknown = [
            name
            for name in floors
            if not _FLOOR_METRIC.fullmatch(name)
            and not (info.field_name == "sealed_floors" and _LOCKED_METRIC.fullmatch(name))
        ]
        if unknown:
            message = (
                f"no metric {_WHERE[str(info.field_name)]} is called {', '.join(unknown)}; expected"
                " such as image/auroc, patient/balanced_accuracy, patient/recall_malignant"
            )
            raise ValueError(message)
        return floors


SpaceValue = Range | tuple[Scalar, ...] | Scalar


class StudyConfig(_Section):
    """One study, as its file, its profile and ``--set`` together say."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    task: Literal["binary", "multiclass"]
    objective: ObjectiveName
    description: str = ""
    data: DataConfig = DataConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    space: dict[str, SpaceValue] = {}
    enqueue: tuple[dict[str, Scalar], ...] = ()
    metrics: tuple[str, ...] = ()
    """Further metrics, each ``module:function``: see :mod:`breakhis_search.evaluation.own_metrics`.
    """
    stages: StagesConfig | None = None
    finalists: FinalistsConfig = FinalistsConfig()
    selection: SelectionConfig = SelectionConfig()
    registration: RegistrationConfig = RegistrationConfig()

    @model_validator(mode="after")
    def _pruner_fits_the_protocol(self) -> StudyConfig:
        if self.search.pruner == "hyperband" and self.protocol.kind != "holdout":
            message = (
                "pruner: hyperband halves by the epochs of one fold; it is for protocol.kind:"
                " holdout only (median is for several folds)"
            )
            raise ValueError(message)
        return self

    @field_validator("metrics")
    @classmethod
    def _metrics_are_functions(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in metrics if not is_own_name(name)]
        if wrong:
            message = f"module:function is expected, received {', '.join(wrong)}"
            raise ValueError(message)
        functions = [name.rpartition(":")[2] for name in metrics]
        twice = sorted({name for name in functions if functions.count(name) > 1})
        if twice:
            message = f"several functions are called {', '.join(twice)}: rename one"
            raise ValueError(message)
        return metrics

    @field_validator("space")
    @classmethod
    def _choices_are_not_empty(cls, space: dict[str, SpaceValue]) -> dict[str, SpaceValue]:
        empty = [name for name, value in space.items() if value == ()]
        if empty:
            message = f"no choice is left for {', '.join(empty)}"
            raise ValueError(message)
        return space

    @property
    def magnification(self) -> int | None:
        """The one magnification of the study, or ``None`` for all."""
        return None if self.data.magnification == "all" else self.data.magnification
