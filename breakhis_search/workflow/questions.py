"""The gate's questions, asked of what MLflow and the disk hold about two versions.

The rules they are judged by, then out-of-fold, then on the sealed test; see
:mod:`breakhis_search.comparison.gate` for what each may decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.gate import (
    Decision,
    GateRules,
    judge_floors,
    judge_sealed,
    judge_superiority,
    stricter_in_words,
)
from breakhis_search.comparison.history import ChampionChange
from breakhis_search.comparison.openings import last_answer, openings_of
from breakhis_search.data.catalog import read_catalog
from breakhis_search.errors import ComparisonError, RegistryError
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.settings import Settings
from breakhis_search.tracking import keys
from breakhis_search.workflow.dataset import choose_data
from breakhis_search.workflow.loading import load_verified, verify
from breakhis_search.workflow.sealed import (
    SealedImages,
    open_sealed_test,
    recorded_metrics,
    sealed_images,
)

if TYPE_CHECKING:
    from breakhis_search.workflow.promotion import PromotionRequest

Say = Callable[[str], None]

_NEW_BEGINNING = (
    "refit the champion's configuration on the new data (`run` with its values in `enqueue`), make"
    " that version champion with `promote --version N --force`, then ask again"
)


def rules_for(
    history: Sequence[ChampionChange], target: Any, rival: Any
) -> tuple[GateRules, Decision]:
    """The stricter of the rules of both: a study cannot make it easier to replace a champion.

    The champion's are those it was made champion under, which include those of the one before it.

    Raises:
        RegistryError: The version that is asked about was registered by something else.
    """
    mine = _rules_of(target)
    if mine is None:
        raise RegistryError(
            f"version {target.version} of {target.name} says nothing of how it was made",
            expected=f"a version with the tag {keys.GATE_RULES}",
            remedy="promote versions that `run` registered",
        )
    nothing = Decision(True, ())
    if rival is None:
        return mine, nothing
    its = _rules_held(history, rival)
    if its is None or keys.EVIDENCE_RUN not in rival.tags:
        why = (
            f"cannot be compared: version {rival.version} (champion) says nothing of how it was"
            f" made; {_NEW_BEGINNING}"
        )
        return mine, Decision.of(False, why)
    if mine.objective != its.objective:
        why = (
            f"cannot be compared: version {rival.version} (champion) was selected by"
            f" {its.objective}, version {target.version} by {mine.objective}; {_NEW_BEGINNING}"
        )
        return mine, Decision.of(False, why)
    both = mine.stricter(its)
    more = stricter_in_words(mine, both)
    said = f"asked beyond its own study's rules, by those of version {rival.version}: {more}"
    return both, Decision.of(True, said) if more else nothing


def _rules_of(version: Any) -> GateRules | None:
    """The rules a version was registered under."""
    text = version.tags.get(keys.GATE_RULES)
    return None if text is None else GateRules.from_json(text)


def _rules_held(history: Sequence[ChampionChange], champion: Any) -> GateRules | None:
    """The rules a champion held when it last became one by the gate, or else its own."""
    moves = [m for m in history if m.version == str(champion.version)]
    made = [m for m in moves if m.action != "rolled back"]
    return GateRules.from_json(made[-1].rules) if made and made[-1].rules else _rules_of(champion)


def ask_out_of_fold(
    client: Any, target: Any, rival: Any | None, rules: GateRules
) -> tuple[Decision, dict[str, float]]:
    """Return whether the floors are held and the rival is surpassed, and the headline scores.

    Args:
        client: An MLflow client.
        target: The version that is asked about.
        rival: The champion; ``None`` without one, or where the two cannot be compared.
        rules: What is asked for.
    """
    table = read_predictions(client, target.tags[keys.EVIDENCE_RUN])
    metrics = compute_metrics(table)
    decision = judge_floors(metrics, rules.floors, where="out-of-fold")
    if rival is not None:
        decision += _against(client, rival, target, table, rules)
    headline = (f"image/{rules.objective}", f"patient/{rules.objective}")
    return decision, {f"out_of_fold/{name}": metrics[name] for name in headline if name in metrics}


def _against(client: Any, rival: Any, target: Any, table: Any, rules: GateRules) -> Decision:
    """Superiority over the champion, where the two can be compared at all.

    One that was kept from other sealed patients may have been trained on those of the other, and
    predictions of other images have no pairs. Both are refusals, not dead ends: ``--force`` takes
    the new data as the new beginning, and later versions are compared on it.
    """
    mine, its = (v.tags.get(keys.SEALED_DIGEST, "") for v in (target, rival))
    if mine != its:
        return Decision.of(
            False,
            f"cannot be compared: version {rival.version} (champion) and version {target.version}"
            f" were kept from different sealed tests ({its[:12] or 'absent'} and"
            f" {mine[:12] or 'absent'}); {_NEW_BEGINNING}",
        )
    try:
        champion = read_predictions(client, rival.tags[keys.EVIDENCE_RUN])
        return judge_superiority(table, champion, rules)
    except (ComparisonError, RegistryError) as error:
        return Decision.of(False, f"cannot be compared: {error}; {_NEW_BEGINNING}")


@dataclass(frozen=True)
class SealedQuestion:
    """Whether the sealed test vetoes."""

    client: Any
    target: Any
    rival: Any | None
    rules: GateRules
    study_root: str | None
    request: PromotionRequest
    settings: Settings
    say: Say

    def answer(self, scores: dict[str, float]) -> Decision:
        """Open the sealed test, if there is one and this is no dry run; add to the scores."""
        tags = self.target.tags
        if not tags.get(keys.SEALED_DIGEST):
            why = tags.get(keys.SEALED_TEST, "its study has none")
            return Decision.of(True, f"there is no sealed test ({why}): decided out-of-fold only")
        asked = [version for version in (self.target, self.rival) if version is not None]
        recorded = [self._recorded(version, tags[keys.SEALED_DIGEST]) for version in asked]
        is_known = all(metrics is not None for metrics in recorded)
        if self.request.dry_run and not is_known:
            patients = tags.get(keys.SEALED_TEST, "its patients")
            return Decision.of(
                True,
                f"the sealed test ({patients}) would be opened now, and decide (dry run: it was"
                " not)",
            )
        answers = recorded if is_known else self._opened(asked, recorded)
        challenger, champion = answers[0] or {}, answers[1] if len(answers) > 1 else None
        name = f"image/{self.rules.objective}"
        for role, metrics in (("sealed_test", challenger), ("sealed_test_champion", champion)):
            if metrics and name in metrics:
                scores[f"{role}/{name}"] = metrics[name]
        if is_known and not self.request.dry_run:
            verify(self.target)  # it is the very file that answered
        return judge_sealed(challenger, champion, self.rules)

    def _opened(
        self, asked: Sequence[Any], recorded: Sequence[dict[str, float] | None]
    ) -> list[dict[str, float] | None]:
        """What the sealed test says of each; it is opened for those it has not answered for."""
        images = self._images()
        # All are checked before any is opened: a blind opening is too dear for a broken file.
        models: list[Any] = []
        for version, known in zip(asked, recorded, strict=True):
            if known is None:
                models.append(load_verified(version))
            else:
                verify(version)
                models.append(None)
        rivals = (self.rival, self.target)
        return [
            self._open(version, model, images, against=rival) if known is None else known
            for version, model, known, rival in zip(asked, models, recorded, rivals, strict=False)
        ]

    def _open(
        self, version: Any, model: Any, images: SealedImages, *, against: Any
    ) -> dict[str, float]:
        number = None if against is None else str(against.version)
        return open_sealed_test(self.client, version, model, images, against=number, say=self.say)

    def _recorded(self, version: Any, sealed_digest: str) -> dict[str, float] | None:
        """What the sealed test said of a version before, so that nothing need be opened again."""
        last = last_answer(openings_of(self.client, version), version, sealed_digest)
        if last is None or self.request.again:
            return None
        when = last.when.removesuffix("+00:00")
        self.say(
            f"the sealed test was opened for version {version.version} of {version.name} at {when}"
            " UTC: what it said then counts (--again opens it once more, and that is marked)"
        )
        return recorded_metrics(self.client, version, last)

    def _images(self) -> SealedImages:
        """The sealed test the versions were kept from."""
        tags = self.target.tags
        root = self.study_root or _folder_still_there(tags.get(keys.DATA_FOLDER))
        data = choose_data(self.request.data, self.settings, study_root=root)
        if data.is_demo and not self.request.demo:
            raise RegistryError(
                f"the sealed test of version {self.target.version} of {self.target.name} needs the"
                " images of its study, and none were given",
                remedy="name them with --data DIR",
            )
        magnification = tags.get(keys.MAGNIFICATION, "all")
        catalog = read_catalog(data.folder, cache_dir=self.settings.cache_dir)
        images = sealed_images(
            catalog.require_usable("skip"),
            tags[keys.TASK],
            None if magnification == "all" else int(magnification),
        )
        wanted = tags[keys.SEALED_DIGEST]
        if images is None or images.digest != wanted:
            found = f"digest {images.digest[:12]}" if images else "no sealed test"
            raise RegistryError(
                f"{data.folder} ({data.source}) holds another sealed test than version"
                f" {self.target.version} was kept from",
                expected=f"digest {wanted[:12]}",
                received=found,
                remedy="name the data of its study with --data DIR",
            )
        return images


def _folder_still_there(folder: str | None) -> str | None:
    """Where a version's images were, if this machine has that place."""
    return folder if folder and Path(folder).is_dir() else None
