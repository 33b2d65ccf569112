"""A study from Python: tables are DataFrames, figures are Plotly's.

    from breakhis_search.api import open_study

    study = open_study("binary")
    study.leaderboard()
    study.best.roc()
    study.trial(7).learning_curves()
    study.champion()

Nothing is trained and nothing is changed; Keras is loaded by :meth:`Champion.load` alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from mlflow.exceptions import MlflowException

from breakhis_search.comparison.contest import Pair, compare_pair
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.history import ChampionChange, champion_of, read_history
from breakhis_search.comparison.leaderboard import find_studies
from breakhis_search.comparison.profile import read_profile
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.errors import ComparisonError, RegistryError, StudyError
from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.figures import confusion_figure, pr_figure, roc_figure
from breakhis_search.evaluation.intervals import bootstrap_intervals
from breakhis_search.evaluation.learning_curves import loss_figure, score_figure
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective
from breakhis_search.evaluation.mistakes import Mistake, most_confident_mistakes
from breakhis_search.evaluation.patient_strips import patient_strips
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel
from breakhis_search.reporting.search_figures import history_figure, importances
from breakhis_search.settings import Settings, read_settings
from breakhis_search.study.storage import trials_of
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.workflow.comparison import compare_studies
from breakhis_search.workflow.loading import load_verified

_SHORT = ["rank", "trial", "stage", "state", "architecture", "sampling", "score", "patient_score"]


def open_study(name: str, *, home: Path | str | None = None) -> Study:
    """Return a study of the store in use.

    Args:
        name: Such as ``binary``, ``multiclass-demo`` or ``binary@v2``; without a version, the
            newest.
        home: The folder it was searched in; by default the current one. A server named by
            ``MLFLOW_TRACKING_URI`` goes before its ``mlruns/``.

    Raises:
        TrackingError: The store cannot be opened, or has no such study.
    """
    settings = read_settings(home=None if home is None else Path(home))
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        [known] = find_studies(client, [name])
    return Study(
        known["study"], known["objective"], known["study_uid"], known["task"], client, settings
    )


@dataclass(frozen=True)
class Study:
    """A study, read from MLflow.

    Attributes:
        name: Full name, such as ``binary@v1``.
        objective: What was maximised.
        uid: Its identity.
        task: ``binary`` or ``multiclass``.
        client: The MLflow client in use.
        settings: Where things are.
    """

    name: str
    objective: Objective
    uid: str
    task: str
    client: Any = field(repr=False)
    settings: Settings = field(repr=False)

    def leaderboard(self) -> pd.DataFrame:
        """Return finalists, ranked, and below them the trials of the search, best first.

        Finalists are those that the selection was made among, as in ``compare``.

        Columns: :data:`breakhis_search.comparison.leaderboard.COLUMNS`; ``score`` is the pooled
        out-of-fold objective of images, ``patient_score`` that of patients.
        """
        [judged] = compare_studies(self.client, [self.name]).studies
        ranked = judged.finalists.reindex(columns=judged.trials.columns)
        parts = [part for part in (ranked, judged.trials) if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else judged.trials

    @property
    def best(self) -> Trial:
        """The first of the leaderboard: the best finalist, or the best trial without finalists.

        Raises:
            ComparisonError: No trial is complete.
        """
        board = self.leaderboard()
        scored = board[board["score"].notna()]
        if scored.empty:
            raise ComparisonError(f"no trial of {self.name} is complete", remedy="run the study")
        return self._trial(scored.iloc[0])

    def trial(self, number: int) -> Trial:
        """Return a trial of the search by its number.

        Raises:
            ComparisonError: There is none; the known ones are named.
        """
        return self._find(number, keys.SEARCH_STAGES)

    def finalist(self, number: int) -> Trial:
        """Return a finalist by the number of its trial.

        Raises:
            ComparisonError: There is none; the known ones are named.
        """
        return self._find(number, (keys.STAGE_FINALISTS,))

    @property
    def selected(self) -> Trial:
        """The finalist that was selected: of those tied with the best, the smallest.

        It is the configuration of the registered version, and need not be :attr:`best`.

        Raises:
            ComparisonError: No finalist is trained, so nothing is selected.
        """
        board = self.selection()
        if "selected" not in board or not board["selected"].any():
            raise ComparisonError(
                f"{self.name} has no finalist yet", remedy="run the study to its end"
            )
        return self._trial(board[board["selected"]].iloc[0])

    def predictions(self) -> pd.DataFrame:
        """Return the out-of-fold predictions of :attr:`best`: one row per image and seed."""
        return self.best.predictions()

    def compare(self, first: Trial, second: Trial) -> Pair:
        """Return how two trials compare: swap test, interval of the difference, verdict.

        Raises:
            ComparisonError: They were not scored on the same images.
        """
        names = ((first.name, first.run_id), (second.name, second.run_id))
        return compare_pair(self.client, *names, self.objective)

    def selection(self) -> pd.DataFrame:
        """Return the finalists with what speaks for and against each, the selected one marked.

        Columns: those of :class:`.comparison.selection.Selection`'s table, such as ``difference``
        to the best with its interval ``low`` and ``high``, ``p_holm``, ``tied``, ``selected``.
        """
        [judged] = compare_studies(self.client, [self.name]).studies
        return judged.finalists

    def search_history(self) -> go.Figure | None:
        """Return the scores of complete trials in order, the best so far, and marks of the others.

        ``None`` where no trial is complete.
        """
        return history_figure(self._trials_of_search(), OBJECTIVE_TITLES[self.objective])

    def importances(self) -> pd.DataFrame:
        """Return how much each hyperparameter tells good trials from others, the most first.

        Empty where too few trials differ.
        """
        found = importances(self._trials_of_search())
        return pd.DataFrame({"hyperparameter": list(found), "importance": list(found.values())})

    def _trials_of_search(self) -> list[Any]:
        trials, _ = trials_of(self.settings.studies_uri, self.name, self.uid)
        return trials

    def profile(self) -> pd.DataFrame:
        """Return the seconds of every run by phase."""
        return read_profile(self.client, self.name, self.uid)

    def champion(self) -> Champion:
        """Return the champion of this study's task.

        Raises:
            RegistryError: There is none yet.
        """
        version = champion_of(self.client, self._registered)
        if version is None:
            raise RegistryError(
                f"{self._registered} has no champion",
                remedy="ask `promote` to make a version champion",
            )
        aliases = self.client.get_registered_model(self._registered).aliases
        return Champion(read_facts(self.client, version, aliases), version, self.client)

    def decisions(self) -> pd.DataFrame:
        """Return who was champion of this study's task when, and why; empty without any.

        Columns: :class:`.comparison.history.ChampionChange`, one row per move of the alias.
        """
        return _frame_of(ChampionChange, read_history(self.client, self._registered))

    @property
    def _registered(self) -> str:
        return keys.registered_name(self.task, demo="-demo@" in self.name)  # type: ignore[arg-type]

    def _find(self, number: int, stages: tuple[str, ...]) -> Trial:
        board = self.leaderboard()
        rows = board[board["stage"].isin(stages)]
        found = rows[rows["trial"] == number]
        if found.empty:
            known = ", ".join(str(n) for n in sorted(set(rows["trial"].astype(int))))
            raise ComparisonError(
                f"{self.name} has no trial {number} there", expected=f"one of {known or 'none yet'}"
            )
        return self._trial(found.iloc[0])

    def _trial(self, row: pd.Series) -> Trial:
        kind = "finalist" if row["stage"] == keys.STAGE_FINALISTS else "trial"
        name = f"{self.name} {kind} {int(row['trial'])}"
        return Trial(name, int(row["trial"]), str(row["run_id"]), str(row["state"]), self.client)

    def _repr_html_(self) -> str:
        board = self.leaderboard()[_SHORT].head(20)
        return f"<b>{escape(self.name)}</b>{board.to_html(index=False, na_rep='')}"


@dataclass(frozen=True)
class Trial:
    """A trial of a search, or a finalist.

    Attributes:
        name: Such as ``binary@v1 trial 7``.
        number: Of the trial.
        run_id: Its MLflow run.
        state: Such as ``complete`` or ``pruned``.
        client: The MLflow client in use.
    """

    name: str
    number: int
    run_id: str
    state: str
    client: Any = field(repr=False)

    @cached_property
    def _run(self) -> Any:
        return self.client.get_run(self.run_id)

    @property
    def params(self) -> dict[str, str]:
        """Its hyperparameters and settings, as MLflow keeps them."""
        return dict(self._run.data.params)

    @property
    def metrics(self) -> dict[str, float]:
        """Its scores by name, such as ``patient/auroc``."""
        return dict(self._run.data.metrics)

    def predictions(self) -> pd.DataFrame:
        """Return its out-of-fold predictions: one row per image and seed.

        Raises:
            ComparisonError: It has none, because it did not complete.
            RegistryError: They cannot be read any more.
        """
        if self.state != "complete":
            raise ComparisonError(f"{self.name} has no predictions: it is {self.state}")
        return read_predictions(self.client, self.run_id)

    def intervals(self) -> pd.DataFrame:
        """Return every score with its 95 % interval over patients, or the reason for none."""
        return bootstrap_intervals(self.predictions()).to_frame()

    def roc(self, level: DrawnLevel = "image") -> go.Figure | None:
        """Return its ROC curves, by ``image`` or by ``patient``."""
        return roc_figure(self.predictions(), _drawn(level))

    def precision_recall(self, level: DrawnLevel = "image") -> go.Figure | None:
        """Return its precision-recall curves, by ``image`` or by ``patient``."""
        return pr_figure(self.predictions(), _drawn(level))

    def confusion(self, level: DrawnLevel = "image") -> go.Figure:
        """Return its confusion matrix in counts, by ``image`` or by ``patient``."""
        return confusion_figure(self.predictions(), _drawn(level), "count")

    def patients(self) -> go.Figure:
        """Return a row for every patient with a mark for every image."""
        return patient_strips(self.predictions())

    def mistakes(self) -> pd.DataFrame:
        """Return its most confident mistakes, the surest first, at most two of one patient.

        Columns: :class:`.evaluation.mistakes.Mistake`; no row where it makes none.
        """
        return _frame_of(Mistake, most_confident_mistakes(self.predictions()))

    def by_magnification(self) -> pd.DataFrame:
        """Return shares of right images and patients by tumour type and magnification.

        Columns: :data:`breakhis_search.evaluation.cells.COLUMNS`.
        """
        return cell_table(self.predictions())

    def history(self) -> pd.DataFrame:
        """Return its epochs: fold, epoch, losses, score, learning rate.

        Raises:
            ComparisonError: It has none, because it did not complete.
        """
        return self._table(keys.ARTIFACT_HISTORY, "it did not complete")

    def calibration(self) -> pd.DataFrame:
        """Return the dots of a finalist's reliability diagrams, before and after calibration.

        Columns: those of :func:`.evaluation.reliability.reliability_points`, cross-fitted: a
        patient's temperature is that of other patients.

        Raises:
            ComparisonError: It is no finalist; trials of the search are not calibrated.
        """
        return self._table(keys.ARTIFACT_RELIABILITY, "only finalists are calibrated")

    def _table(self, artifact: str, why_absent: str) -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = self.client.download_artifacts(self.run_id, artifact, folder)
            except (MlflowException, OSError) as error:
                raise ComparisonError(f"{self.name} has no {artifact}: {why_absent}") from error
            return pd.read_csv(file)

    def learning_curves(self) -> list[go.Figure]:
        """Return its losses and its scores by epoch; of a finalist those of its first seed."""
        history = self.history()
        if "seed" in history:
            history = history[history["seed"] == history["seed"].min()]
        found = [loss_figure(history), score_figure(history)]
        return [figure for figure in found if figure is not None]

    def _repr_html_(self) -> str:
        scores = {k: f"{v:.4f}" for k, v in self.metrics.items() if k.startswith("objective/")}
        told = ", ".join(f"{k} {v}" for k, v in scores.items()) or self.state
        return f"<b>{escape(self.name)}</b>: {escape(told)}"


@dataclass(frozen=True)
class Champion:
    """The registered version that ``predict`` uses.

    Attributes:
        facts: What it is, and what speaks against it.
        version: MLflow's model version.
        client: The MLflow client in use.
    """

    facts: VersionFacts
    version: Any = field(repr=False)
    client: Any = field(repr=False)

    def load(self) -> Any:
        """Return its MLflow pyfunc, after checking that it is the artifact that was registered.

        Raises:
            RegistryError: It is not.
        """
        return load_verified(self.version)

    def history(self) -> pd.DataFrame:
        """Return who was champion when, and why: one row per move of the alias."""
        return _frame_of(ChampionChange, read_history(self.client, self.facts.name))

    def _repr_html_(self) -> str:
        return escape(self.facts.in_words())


def _drawn(level: DrawnLevel) -> DrawnLevel:
    """Return a level that curves are drawn of; what a notebook asks for is typed by hand.

    Raises:
        StudyError: It is no such level.
    """
    if level not in DRAWN_LEVELS:
        raise StudyError(
            "there are no curves of that level",
            expected=" or ".join(DRAWN_LEVELS),
            received=repr(level),
        )
    return level


def _frame_of(kind: type[Any], records: Sequence[Any]) -> pd.DataFrame:
    """Return dataclasses as rows; without any, the columns are there all the same."""
    columns = [column.name for column in fields(kind)]
    return pd.DataFrame([asdict(record) for record in records], columns=columns)
