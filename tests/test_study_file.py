"""Study files: profiles, overrides, and all errors at once with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from breakhis_search.config import Range, parse_duration
from breakhis_search.errors import ConfigError
from breakhis_search.study_file import available_studies, find_study_file, load_study, profile_names
from breakhis_search.workflow.space_check import check_space

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"

MINIMAL = """\
name: mine
task: binary
objective: auroc
training: {max_epochs: 9, head_epochs: 2}
space:
  model/architecture: [small_cnn, mobilenet]
  optimizer/learning_rate: {low: 1e-4, high: 1e-2, log: true}
profiles:
  fast:
    training: {max_epochs: 3}
    space:
      optimizer/learning_rate: 0.001
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINIMAL)
    return file


def errors_of(file: Path, text: str, **options: object) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError, match="error") as caught:
        load_study(file, check_space=check_space, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [*available_studies(EXPERIMENTS), *available_studies(EXPERIMENTS / "reference")],
)
def test_every_shipped_study_is_valid_in_every_profile(name):
    folder = EXPERIMENTS if name in available_studies(EXPERIMENTS) else EXPERIMENTS / "reference"
    file = find_study_file(name, folder)
    for profile in [None, *profile_names(file)]:
        assert load_study(file, profile=profile, check_space=check_space).name == name


def test_a_profile_lies_over_the_file(study):
    config = load_study(study, profile="fast")
    assert config.training.max_epochs == 3
    assert config.training.head_epochs == 2
    assert config.space["optimizer/learning_rate"] == 0.001


def test_an_override_lies_over_the_profile(study):
    overrides = ["training.max_epochs=5", "space.head/units=[0, 64]", "search.timeout=2h"]
    config = load_study(study, profile="fast", overrides=overrides, check_space=check_space)
    assert config.training.max_epochs == 5
    assert config.space["head/units"] == (0, 64)
    assert config.search.timeout == 7200


def test_numbers_in_scientific_notation_are_numbers(study):
    bounds = load_study(study).space["optimizer/learning_rate"]
    assert bounds == Range(low=1e-4, high=1e-2, log=True)


def test_all_errors_are_reported_at_once_with_their_lines(study):
    message = errors_of(
        study,
        MINIMAL.replace("task: binary", "task: ternary")
        .replace("max_epochs: 9", "max_epoch: 9")
        .replace("low: 1e-4, high: 1e-2", "low: 1e-2, high: 1e-4")
        .replace("mobilenet]", "mobilnet]"),
    )
    assert "mine.yaml has 4 errors" in message
    assert "mine.yaml:2: task: input should be 'binary' or 'multiclass'" in message
    assert "mine.yaml:4: training.max_epoch: unknown key; did you mean 'max_epochs'?" in message
    assert "mine.yaml:7: space.optimizer/learning_rate: low must not exceed high" in message
    assert "mine.yaml:6" in message
    assert "did you mean 'mobilenet'?" in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  optimizer/learnig_rate: 0.1", "did you mean 'optimizer/learning_rate'?"),
        ("  sampling/strategy: [smote]", "unknown smote; known: none, class_weights"),
        ("  head/units: []", "no choice is left for head/units"),
        ("  head/units: {low: 1}", "is missing"),
        ("  head/dropout_rate: 1.5", "1.5 is impossible; expected 0 to 0.95"),
        ("  augmentation/strength: fast", "a number is expected, received 'fast'"),
        ("  small_cnn/blocks: {low: 0.5, high: 2}", "a whole number is expected"),
        ("  small_cnn/blocks: 0", "0 is impossible"),
        ("  sampling/strategy: {low: 0, high: 1}", "a range needs numbers"),
        ("  augmentation/strength: {low: .nan, high: 1}", "nan is impossible"),
        ("enqueue: [{optimizer/learnig_rate: 0.1}]", "did you mean 'optimizer/learning_rate'?"),
        ("enqueue: [{sampling/strategy: smote}]", "unknown smote"),
        (
            "registration: {floors: {patient/aurok: 0.5}}",
            "no metric out-of-fold is called patient/aurok",
        ),
        (
            "registration: {floors: {image/sensitivity: 0.8}}",
            "no metric out-of-fold is called image/sensitivity",
        ),
        ("search: {timeout: -5}", "greater than 0"),
        ("  1: 2", "a key must be a name"),
        ("description: !foo x", "cannot be read"),
        ("  head/units: {low: 0, high: 8, log: true}", "a log range needs low > 0"),
    ],
)
def test_a_wrong_line_is_named(study, line, says):
    study.write_text(MINIMAL.replace("profiles:", f"{line}\nprofiles:"))
    with pytest.raises(ConfigError, match=r"mine.yaml:\d+") as caught:
        load_study(study, check_space=check_space)
    assert says in str(caught.value)


def test_off_and_dates_are_text(study):
    study.write_text(MINIMAL.replace("head_epochs: 2", "head_epochs: 2, mixed_precision: off"))
    assert load_study(study).training.mixed_precision == "off"
    study.write_text(MINIMAL + "description: 2024-13-45\n")
    assert load_study(study).description == "2024-13-45"


def test_an_error_in_an_override_names_the_override(study):
    message = errors_of(study, MINIMAL, overrides=["search.trials=many"])
    assert message.startswith(
        "mine.yaml with what --set says has 1 error:\n  --set search.trials: input should be"
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.magnificaton=100", "data.magnificaton: unknown key; did you mean 'magnification'?"),
        ("datamagnification=100", "unknown key; did you mean 'data.magnification'?"),
        ("model/architecture=vgg16", "unknown key; did you mean 'space.model/architecture'?"),
        ("max_epochs=3", "unknown key; did you mean 'training.max_epochs'?"),
    ],
)
def test_an_override_without_its_section_is_recognised(study, override, says):
    message = errors_of(study, MINIMAL, overrides=[override])
    assert f"--set {override.partition('=')[0]}: unknown key" in message
    assert says in message


def test_overrides_that_contradict_each_other_are_both_named(study):
    overrides = ["training.head_epochs=9", "training.max_epochs=3"]
    message = errors_of(study, MINIMAL, overrides=overrides)
    assert "--set training.head_epochs, --set training.max_epochs: training: head_epochs (9)" in (
        message
    )


def test_a_key_given_twice_is_an_error(study):
    study.write_text(MINIMAL + "name: other\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:13: 'name' is given twice"):
        load_study(study)


def test_broken_yaml_is_one_line(study):
    study.write_text("name: [unclosed\ntask: binary\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:\d: not valid YAML") as caught:
        load_study(study)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_is_an_error(study):
    with pytest.raises(ConfigError, match="no profile 'fats'.*did you mean 'fast'"):
        load_study(study, profile="fats")


def test_an_unknown_study_is_an_error(tmp_path):
    (tmp_path / "binary.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match="no study 'binray'.*did you mean 'binary'"):
        find_study_file("binray", tmp_path)


def test_an_override_without_value_is_an_error(study):
    with pytest.raises(ConfigError, match="--set was not understood.*received 'trials'"):
        load_study(study, overrides=["trials"])


def test_holdout_without_accessions_is_an_error(study):
    message = errors_of(study, MINIMAL + "protocol: {kind: holdout}\n")
    assert "validation_accessions must be named" in message


def test_accessions_may_be_written_as_numbers(study):
    study.write_text(
        MINIMAL + "protocol: {kind: holdout, validation_accessions: [3411, 14-9133]}\n"
    )
    assert load_study(study).protocol.validation_accessions == ("3411", "14-9133")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "2 weeks", "h", "-3m"])
def test_a_wrong_duration_is_an_error(text):
    with pytest.raises(ValueError, match="a duration such as 90s"):
        parse_duration(text)


def test_an_override_is_blamed_for_what_it_brought_not_the_line_it_replaced(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: s\ntask: binary\nobjective: auroc\nspace:\n  model/architecture: [mobilenet]\n"
    )
    with pytest.raises(ConfigError, match=r"--set space\.model/architecture.*unknown architecture"):
        load_study(file, overrides=["space.model/architecture=[resnet50]"], check_space=check_space)


@pytest.mark.parametrize("key", ["float", "str", "Range"])
def test_an_unknown_key_is_named_although_pydantic_calls_members_of_unions_so(tmp_path, key):
    file = tmp_path / "x.yaml"
    file.write_text(f"name: x\ntask: binary\nobjective: auroc\n{key}: 1\nsearch: {{{key}: 2}}\n")
    with pytest.raises(ConfigError) as error:
        load_study(file)
    assert f"x.yaml:4: {key}: unknown key" in str(error.value)
    assert f"x.yaml:5: search.{key}: unknown key" in str(error.value)
