"""Everything a trial needs that is the same for all trials of a study."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from breakhis_search.config import SpaceValue, StudyConfig
from breakhis_search.data.feature_store import StoredFeatures
from breakhis_search.data.splits import Split
from breakhis_search.data.taxonomy import class_names
from breakhis_search.models.weights import ResolvedWeights
from breakhis_search.settings import Settings
from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.study.leases import Leases
from breakhis_search.study.progress import SearchObserver, SilentObserver
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import Carrier
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.model_writer import ModelWriter
from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import Feeds
from breakhis_search.training.graphs import GraphCache


@dataclass(frozen=True)
class StudyContext:
    """One study, ready to run trials.

    Attributes:
        config: The checked study.
        space: What is searched now; a stage narrows that of the study.
        split: The folds over the development images; no row of it is sealed.
        root: Folder that the paths of the split's table are relative to.
        images: All images of the split's table, uint8 [n, h, w, 3]. Sealed ones are not decoded.
        architectures: What ``model/architecture`` may be.
        weights: Pretrained weights by architecture.
        device: Where it trains.
        settings: Where things are.
        delivery: Carries journals to MLflow.
        leases: Tells who works on what.
        checkpoints: Keeps what runs at work have reached.
        name: Full study name, such as ``binary@v1``.
        uid: Identity of this version of the study.
        experiment: MLflow experiment.
        tags: Tags every run of the study carries.
        observer: Whoever watches.
        graphs: Models and compiled steps, kept from trial to trial.
        stage: Of the search.
        features: Feature stores that were opened, and so checked, by what they are of.
        feeds: Images that were brought to the device.
        models: Writes models.
        batch_sizes: Images per step by architecture, where the study leaves them open.
        startup: Seconds this process took before its first trial, by phase, until they are told.
    """

    config: StudyConfig
    space: Mapping[str, SpaceValue]
    split: Split
    root: Path
    images: npt.NDArray[np.uint8]
    architectures: tuple[str, ...]
    weights: Mapping[str, ResolvedWeights]
    device: Device
    settings: Settings
    delivery: Carrier
    leases: Leases
    checkpoints: CheckpointFiles
    name: str
    uid: str
    experiment: str
    tags: Mapping[str, str]
    observer: SearchObserver = field(default_factory=SilentObserver)
    graphs: GraphCache = field(default_factory=GraphCache)
    stage: str = keys.STAGE_SEARCH
    features: dict[str, StoredFeatures] = field(default_factory=dict)
    feeds: Feeds = field(init=False)
    models: ModelWriter = field(default_factory=ModelWriter)
    batch_sizes: MutableMapping[str, int] = field(default_factory=dict)
    startup: MutableMapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is on the device yet."""
        object.__setattr__(self, "feeds", Feeds(self.device))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return class_names(self.config.task)

    @property
    def is_demo(self) -> bool:
        """Whether all of it is synthetic."""
        return self.tags[keys.DEMO] == "true"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and 3."""
        return (self.config.data.height_px, self.config.data.width_px, 3)

    def journal(self, uid: str) -> Journal:
        """Return the journal of a run."""
        return Journal(self.settings.journal_dir / uid)
