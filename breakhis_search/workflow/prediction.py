"""``predict``: image files through a registered model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from breakhis_search.comparison.answers import is_refused
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.history import CHALLENGER, CHAMPION, version_of_alias
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.data.demo import is_drawn
from breakhis_search.data.images import ImageDecodeError, decode_rgb
from breakhis_search.data.suitability import doubts_about
from breakhis_search.data.taxonomy import parse_image_name
from breakhis_search.errors import DataError, RegistryError, TrackingError
from breakhis_search.processes import usable_cores
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.wording import how_to_run
from breakhis_search.workflow.loading import load_verified

Progress = Callable[[int, int], None]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
_BATCH = 64
_KEPT_BYTES = 12_000_000  # a field of view of BreaKHis has one million
_DEMO = "-demo"
_NOT_THERE = "it does not exist"
_DRAWN_ONLY = (
    "the model learned from drawn pictures (the demo) and knows nothing of tissue: its answer means"
    " nothing"
)
_PERHAPS_SEALED = (
    "a patient of BreaKHis that the model did not learn from, perhaps a sealed one: whoever looks"
    " at such answers one by one wears the sealed test out"
)


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        model: What the model is.
        table: ``image``, ``label`` and ``probability_<class>`` of every image that was scored.
        doubts: By path, why a scored image may be none that the model is made for.
        bad: Why, by path, for every image that was not scored.
        unexplained: Why there are no maps although they were asked for, in words.
    """

    model: VersionFacts
    table: pd.DataFrame
    doubts: dict[str, tuple[str, ...]]
    bad: dict[str, str]
    unexplained: str = ""


def model_name_of(study: str, settings: Settings, *, demo: bool) -> str:
    """Return the registered model a study's winners go to."""
    config = load_study(find_study_file(study, settings.home / "experiments"))
    return keys.registered_name(config.task, demo=demo)


def predict_images(
    study: str,
    places: Sequence[Path],
    settings: Settings,
    *,
    version: str | None = None,
    demo: bool = False,
    explain_in: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Answer:
    """Score image files, and all images in folders, with the champion (or a named version).

    Whatever can be wrong with the files or the version is found before Keras is loaded.

    Args:
        study: Whose model.
        places: Image files and folders.
        settings: Where things are.
        version: Number of a version; by default the champion.
        demo: Whether the demo's model is meant.
        explain_in: Folder for pictures of where the model found reasons for its label.
        progress: Called with (images looked at and, if they can be, scored; images in all).

    Raises:
        RegistryError: There is no such model or version.
        DataError: No image can be scored.
    """
    name = model_name_of(study, settings, demo=demo)
    files = list(_files(places))
    if not files:
        raise DataError("there is no image to score", expected=", ".join(sorted(_SUFFIXES)))
    _require_one(files)
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        found = find_registered(client, name, study, version=version)
        facts = read_facts(client, found, client.get_registered_model(name).aliases)
        learned = _patients_learned_from(client, found)
    with tracking_errors(settings.tracking_uri):
        model = load_verified(found)
    parts: list[pd.DataFrame] = []
    doubts: dict[str, tuple[str, ...]] = {}
    bad: dict[str, str] = {}
    unexplained = ""
    with ThreadPoolExecutor(usable_cores()) as pool:  # OpenCV releases the interpreter lock
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            seen = list(pool.map(lambda file: _look_at(file, facts, learned), batch))
            bad |= {str(s.file): s.unusable for s in seen if s.unusable}
            doubts |= {str(s.file): s.doubts for s in seen if s.doubts}
            if good := [s for s in seen if not s.unusable]:
                part, unexplained = _score(model, good, explain_in)
                parts.append(part)
            progress(start + len(batch), len(files))
    if not parts:  # the one that could be read before is gone
        raise not_scored(bad, of=len(files))
    return Answer(facts, pd.concat(parts, ignore_index=True), doubts, bad, unexplained)


def not_scored(bad: Mapping[str, str], *, of: int) -> DataError:
    """Return the error that names images which cannot be scored.

    Args:
        bad: Why, by path.
        of: How many images were given.
    """
    path, why = next(iter(bad.items()))
    few = ", such as " if len(bad) > 1 else ": "
    return DataError(
        f"{len(bad)} of {of} image{'s' * (of > 1)} could not be scored{few}{path} ({why})",
        expected="8-bit RGB image files",
        remedy="mend or leave them out",
    )


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in _SUFFIXES)
        else:
            yield place  # whatever is wrong with it is told beside what is wrong with others


def _require_one(files: Sequence[Path]) -> None:
    """Raise before anything heavy is loaded where no image can be scored at all."""
    bad: dict[str, str] = {}
    for file in files:
        try:
            decode_rgb(file.read_bytes())
        except (ImageDecodeError, OSError) as error:
            bad[str(file)] = _why_unusable(error)
        else:
            return
    raise not_scored(bad, of=len(files))


def _why_unusable(error: ImageDecodeError | OSError) -> str:
    return _NOT_THERE if isinstance(error, FileNotFoundError) else str(error)


@dataclass(frozen=True)
class _Seen:
    """An image file that was looked at.

    Attributes:
        file: The file.
        image: Its pixels, or its bytes where the pixels of a batch of such images would take much
            memory.
        doubts: Why it may be none that the model is made for.
        unusable: Why it cannot be scored; empty where it can.
    """

    file: Path
    image: Any = None
    doubts: tuple[str, ...] = ()
    unusable: str = ""


def _look_at(file: Path, facts: VersionFacts, learned: frozenset[str]) -> _Seen:
    try:
        content = file.read_bytes()
        image = decode_rgb(content)
    except (ImageDecodeError, OSError) as error:
        return _Seen(file, unusable=_why_unusable(error))
    doubts = doubts_about(image, file.name, magnification=facts.magnification_x)
    given = image if image.size <= _KEPT_BYTES else content
    if facts.demo and not is_drawn(file.name):
        return _Seen(file, given, (_DRAWN_ONLY, *doubts))
    return _Seen(file, given, (*doubts, *_acquaintance(file, learned)))


def _patients_learned_from(client: Any, version: Any) -> frozenset[str]:
    """Accessions of the patients a version was fitted to; none where nobody wrote them down."""
    try:
        table = read_predictions(client, version.tags[keys.EVIDENCE_RUN])
    except (KeyError, RegistryError):
        return frozenset()
    return frozenset(table["accession"].astype(str))


def _acquaintance(file: Path, learned: frozenset[str]) -> tuple[str, ...]:
    """What the name of an image says of its patient and the model, if it is one of BreaKHis."""
    name = parse_image_name(file.name)
    if name is None or not learned:
        return ()
    if name.accession in learned:
        return ("the model learned from this patient: its answer says nothing of new ones",)
    return (_PERHAPS_SEALED,)


def _score(
    model: Any, images: Sequence[_Seen], explain_in: Path | None
) -> tuple[pd.DataFrame, str]:
    """Answers for some images, and why there are no maps, if there are none."""
    table = model.predict(pd.DataFrame({"image": [image.image for image in images]}))
    table.insert(0, "image", [str(image.file) for image in images])
    if explain_in is None:
        return table, ""
    from breakhis_search.serving.explanation import explain

    classifier, files = model.unwrap_python_model(), [image.file for image in images]
    pictures, unexplained = explain(classifier, files, list(table["label"]), explain_in)
    return table.assign(explanation=pictures), unexplained


def find_registered(
    client: Any, name: str, study: str, *, version: str | None = None, alias: str | None = None
) -> Any:
    """Return the version that was asked for by number or alias; by default the champion.

    Raises:
        RegistryError: There is no such version; what there is instead is named.
        TrackingError: MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        return (
            client.get_model_version(name, version)
            if version
            else client.get_model_version_by_alias(name, alias or CHAMPION)
        )
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(f"MLflow refused ({str(error).splitlines()[0]})") from error
        wanted = f"version {version}" if version else alias or CHAMPION
        raise _no_such_version(client, name, wanted, study) from error


def _no_such_version(client: Any, name: str, wanted: str, study: str) -> RegistryError:
    """The error that names what there is instead."""
    what = f"{name} has no {wanted}"
    known = sorted(
        (str(v.version) for v in client.search_model_versions(f"name = '{name}'")), key=int
    )
    if not known:
        return RegistryError(
            what,
            expected="a registered model (`status` lists them)",
            remedy=_how_to_have_one(client, name, study),
        )
    if wanted != CHAMPION:
        return _other_versions(client, name, what, known)
    challenger = version_of_alias(client, name, CHALLENGER)
    chosen = str(challenger.version) if challenger is not None else known[-1]
    role = "a challenger" if challenger is not None else "no champion"
    refused = is_refused(client, client.get_model_version(name, chosen))
    return RegistryError(
        what,
        expected=f"one of its versions: {', '.join(known)}",
        received=f"version {chosen}, which is {role}{' that the gate refused' if refused else ''}",
        remedy=f"add --version {chosen} to use it as it is, or search for a better one (`report`"
        " has the gate's reasons)"
        if refused
        else f"add --version {chosen}, or ask `promote` to make it champion",
    )


def _how_to_have_one(client: Any, name: str, study: str) -> str:
    """What to do where a study has no registered model."""

    def is_registered(other: str) -> bool:
        return bool(client.search_model_versions(f"name = '{other}'"))

    if name.endswith(_DEMO):
        real = is_registered(name.removesuffix(_DEMO))
        return how_to_run(study, demo=True) + (
            "; or leave the demo out for the model of real images" if real else ""
        )
    if is_registered(f"{name}{_DEMO}"):
        return "add --demo for the model of the demo"
    return how_to_run(study, demo=False)


def _other_versions(client: Any, name: str, what: str, known: Sequence[str]) -> RegistryError:
    """The error for a version or alias that is not there, where others are.

    Args:
        client: An MLflow client.
        name: Registered model.
        what: What is wrong.
        known: Numbers of its versions.
    """
    aliases = client.get_registered_model(name).aliases
    roles = {
        number: sorted(alias for alias, version in aliases.items() if str(version) == number)
        for number in known
    }
    listed = (f"{n} ({', '.join(roles[n])})" if roles[n] else n for n in known)
    default = ", or leave it out for the champion" if CHAMPION in aliases else ""
    return RegistryError(
        what,
        expected=f"one of its versions: {', '.join(listed)}",
        remedy=f"name one of them with --version{default}",
    )
