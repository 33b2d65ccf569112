"""``promote`` and ``rollback``: the gate, asked in order, with nothing moved on a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breakhis_search.comparison.answers import Action, record_answer
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.gate import (
    Decision,
    GateRules,
    judge_floors,
    judge_sealed,
    judge_superiority,
    stricter_in_words,
)
from breakhis_search.comparison.history import (
    CHALLENGER,
    ChampionChange,
    champion_of,
    change_champion,
    previous_champion,
    read_history,
    version_of_alias,
)
from breakhis_search.comparison.openings import last_answer, openings_of
from breakhis_search.comparison.registry import drop_challenger, find_version
from breakhis_search.data.catalog import read_catalog
from breakhis_search.errors import ComparisonError, RegistryError
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.reporting.attach import attach_after_change, attach_paper_trail
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.workflow.dataset import choose_data
from breakhis_search.workflow.loading import load_verified, verify
from breakhis_search.workflow.sealed import (
    SealedImages,
    open_sealed_test,
    recorded_metrics,
    sealed_images,
)

Say = Callable[[str], None]

_NEW_BEGINNING = (
    "refit the champion's configuration on the new data (`run` with its values in `enqueue`), make"
    " that version champion with `promote --version N --force`, then ask again"
)


@dataclass(frozen=True)
class PromotionRequest:
    """The options of ``promote``, as typed."""

    study: str
    version: str | None = None
    data: Path | None = None
    demo: bool = False
    dry_run: bool = False
    force: bool = False
    again: bool = False


@dataclass(frozen=True)
class PromotionOutcome:
    """What a promotion came to.

    Attributes:
        name: Registered model.
        version: The version that was asked about.
        decision: What the gate found.
        change: The move of the alias; ``None`` for a dry run and a confirmed champion.
    """

    name: str
    version: str
    decision: Decision
    change: ChampionChange | None


def promote(request: PromotionRequest, settings: Settings, say: Say) -> PromotionOutcome:
    """Ask the gate and, if it lets the version through, make it champion.

    Asked about the champion itself, it opens the sealed test for it and checks the floors.

    Raises:
        RegistryError: The gate refuses, with every reason; the registry is as before, but for the
            record of the sealed test's opening if it came to that.
    """
    config = load_study(find_study_file(request.study, settings.home / "experiments"))
    name = keys.registered_name(config.task, demo=request.demo)
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        champion = champion_of(client, name)
        target = _target(client, name, request, champion)
        rival = None if champion is None or champion.version == target.version else champion
        is_confirmation = champion is not None and rival is None
        history = read_history(client, name)
        rules, decision = _rules_for(history, target, rival)
        is_comparable = decision.passed
        table = read_predictions(client, target.tags[keys.EVIDENCE_RUN])
        metrics = compute_metrics(table)
        scores = _headline(metrics, rules)
        decision += judge_floors(metrics, rules.floors, where="out-of-fold")
        if rival is not None and is_comparable:
            decision += _against(client, rival, target, table, rules)
        if decision.passed:
            root = config.data.root
            asked = _SealedQuestion(client, target, rival, rules, root, request, settings, say)
            decision += asked.answer(scores)
        version = str(target.version)
        for reason in decision.reasons:
            say(f"  {reason}")
        if request.dry_run:
            return PromotionOutcome(name, version, decision, None)
        if is_confirmation or not (decision.passed or request.force):
            _record_answer(client, target, rival, decision, is_confirmation=is_confirmation)
            for asked_about in (target, rival):  # the rival's sealed test may have been opened too
                if asked_about is not None:
                    attach_paper_trail(client, name, str(asked_about.version), say)
        if not decision.passed and not request.force:
            raise _refusal(name, version, decision, is_confirmation=is_confirmation)
        if is_confirmation:
            return PromotionOutcome(name, version, decision, None)
        change = change_champion(
            client,
            name,
            version,
            instead_of=None if champion is None else str(champion.version),
            action="promoted" if decision.passed else "forced",
            why="; ".join(decision.reasons),
            scores=scores,
            rules=rules.to_json() if decision.passed else "",
        )
        drop_challenger(client, name, version)
        attach_after_change(client, name, change, say)
    return PromotionOutcome(name, version, decision, change)


def rollback(study: str, settings: Settings, say: Say, *, demo: bool) -> tuple[str, ChampionChange]:
    """Make the previous champion champion again; return the registered model and the move.

    Raises:
        RegistryError: There is none to go back to.
    """
    config = load_study(find_study_file(study, settings.home / "experiments"))
    name = keys.registered_name(config.task, demo=demo)
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        # Read first: if it is another one by the time of the move, the move is refused.
        present = champion_of(client, name)
        version = previous_champion(client, name)
        change = change_champion(
            client,
            name,
            version,
            instead_of=None if present is None else str(present.version),
            action="rolled back",
            why="rolled back on purpose",
        )
        attach_after_change(client, name, change, say)
    return name, change


def _target(client: Any, name: str, request: PromotionRequest, champion: Any) -> Any:
    """The version that is asked about; a dry run without a challenger asks about the champion."""
    if request.dry_run and request.version is None and champion is not None:
        return version_of_alias(client, name, CHALLENGER) or champion
    return find_version(client, name, request.version)


def _rules_for(
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


def _headline(metrics: Mapping[str, float], rules: GateRules) -> dict[str, float]:
    """What the history says that a version had reached out-of-fold."""
    names = (f"image/{rules.objective}", f"patient/{rules.objective}")
    return {f"out_of_fold/{name}": metrics[name] for name in names if name in metrics}


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
class _SealedQuestion:
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
        if self.request.dry_run:
            return Decision.of(True, "the sealed test would be opened now (dry run: it was not)")
        images = self._images()
        asked = [version for version in (self.target, self.rival) if version is not None]
        found = [self._recorded(version, images) for version in asked]
        # All are checked before any is opened: a blind opening is too dear for a broken file. One
        # whose answer is known already is not scored, but it must be the file that answered.
        models: list[Any] = []
        for version, known in zip(asked, found, strict=True):
            if known is None:
                models.append(load_verified(version))
            else:
                verify(version)
                models.append(None)
        rivals = (self.rival, self.target)
        answers = [
            self._open(version, model, images, against=rival) if known is None else known
            for version, model, known, rival in zip(asked, models, found, rivals, strict=False)
        ]
        challenger, champion = answers[0], answers[1] if len(answers) > 1 else None
        name = f"image/{self.rules.objective}"
        for role, metrics in (("sealed_test", challenger), ("sealed_test_champion", champion)):
            if metrics and name in metrics:
                scores[f"{role}/{name}"] = metrics[name]
        return judge_sealed(challenger, champion, self.rules)

    def _open(
        self, version: Any, model: Any, images: SealedImages, *, against: Any
    ) -> dict[str, float]:
        number = None if against is None else str(against.version)
        return open_sealed_test(self.client, version, model, images, against=number, say=self.say)

    def _recorded(self, version: Any, images: SealedImages) -> dict[str, float] | None:
        """What is known of a version on these images, so that nothing need be opened again."""
        last = last_answer(openings_of(self.client, version), version, images.digest)
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


def _record_answer(
    client: Any, target: Any, rival: Any, decision: Decision, *, is_confirmation: bool
) -> None:
    """Write down what the gate answered, with the version's run: the registry stays as it is."""
    action: Action = "refused"
    if is_confirmation:
        action = "confirmed" if decision.passed else "not confirmed"
    against = None if rival is None else str(rival.version)
    record_answer(client, target, against=against, action=action, reasons=decision.reasons)


def _refusal(
    name: str, version: str, decision: Decision, *, is_confirmation: bool
) -> RegistryError:
    if is_confirmation:
        return RegistryError(
            f"version {version} of {name} is champion and does not hold what is asked of it",
            received=decision.refusals_in_short,
            remedy="promote a better version, or go back with `rollback` if there was an earlier"
            " champion; until then `predict` and `status` say so",
        )
    return RegistryError(
        f"version {version} of {name} is not promoted",
        received=decision.refusals_in_short,
        remedy="train a better model, or insist with --force (it is written down)",
    )
