"""Trials that are cut off: at every moment, Optuna and MLflow come to say the same."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from breakhis_search.config import SearchConfig, StudyConfig
from breakhis_search.errors import StudyError, TrackingError, TrialFailure
from breakhis_search.settings import Settings, read_settings
from breakhis_search.study import budget, worker
from breakhis_search.study import taken as taken_trials
from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.study.leases import Leases
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.progress import SilentObserver
from breakhis_search.study.pruning import STAGE as STAGE_OF_TRIAL
from breakhis_search.study.records import TrialRecord, recorded
from breakhis_search.study.report import make_report
from breakhis_search.study.storage import STOPPED
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store
from breakhis_search.training import timing
from breakhis_search.training.devices import Device
from breakhis_search.training.results import EpochReport
from breakhis_search.training.timing import Timer

PICKED = {"optimizer/learning_rate": 0.0012}
STAGE = SimpleNamespace(until=3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, with_stores) -> Settings:
    return read_settings({}, home=with_stores(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def client(settings) -> Any:
    return open_store(settings)


@pytest.fixture
def context(settings, client, tmp_path) -> Any:
    """What the loop needs of a study's context, on a real store."""
    with closing(Leases(f"sqlite:///{tmp_path / 'studies.db'}")) as leases:
        yield SimpleNamespace(
            config=SimpleNamespace(search=SearchConfig(attempts=3)),
            uid="study",
            journal=lambda uid: Journal(settings.journal_dir / uid),
            delivery=Delivery(client, settings, make_report),
            leases=leases,
            checkpoints=CheckpointFiles(tmp_path / "checkpoints"),
            observer=SilentObserver(),
            stage="search",
            name="binary@v1",
            tags={},
            experiment="breakhis-test",
        )


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


@pytest.fixture
def finishing(monkeypatch) -> list[int]:
    """Let every trial end with a score at once; the numbers of those that ran."""
    ran: list[int] = []

    def train(trial, *_args, **_kwargs):
        trial.suggest_float("optimizer/learning_rate", 0.001, 0.01)
        ran.append(trial.number)
        yield from ()
        return 0.75

    monkeypatch.setattr(taken_trials, "run_trial", train)
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: False)
    return ran


def cut_off(study: optuna.Study, uid: str | None) -> optuna.Trial:
    """A running trial as its killed process left it: nobody holds its lease."""
    trial = study.ask()
    trial.suggest_float("optimizer/learning_rate", 0.001, 0.01)
    if uid:
        trial.set_user_attr(budget.UID, uid)
    return trial


def begun(context: SimpleNamespace, uid: str) -> Journal:
    """The journal of a trial, begun and delivered."""
    journal = context.journal(uid)
    tags = {keys.STATE: "running"}
    journal.begin(name=uid, tags=tags, parent_uid=None, experiment="breakhis-test")
    context.delivery.deliver(journal)
    return journal


def run_of(client: Any, uid: str) -> Any:
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    [run] = client.search_runs([experiment], f"tags.`{keys.TRIAL_UID}` = '{uid}'")
    return run


def states(study: optuna.Study) -> list[TrialState]:
    return [t.state for t in study.trials]


def run_one(study: optuna.Study, context: Any) -> int:
    return len(worker.run_batch(study, context, STAGE, at_most=1))


def test_ctrl_c_while_a_trial_is_begun_leaves_none_without_an_owner(study, context, monkeypatch):
    def begin_and_strike():
        trial_id = begin()
        signal.raise_signal(signal.SIGINT)
        return trial_id

    begin, handler = study._pop_waiting_trial_id, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(study, "_pop_waiting_trial_id", begin_and_strike)
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: False)
    study.enqueue_trial(PICKED)
    with pytest.raises(KeyboardInterrupt):
        run_one(study, context)
    assert states(study) == [TrialState.RUNNING]
    assert cut_off_trials(study.trials, context.leases) == [0], "the next one to look takes it"
    assert signal.getsignal(signal.SIGINT) is handler


def test_nobody_ever_sees_a_new_trial_without_an_owner(study, context, monkeypatch):
    def create(*arguments):
        really_create(*arguments)
        [trial] = study.get_trials()
        seen.append((trial.state, trial.user_attrs[STAGE_OF_TRIAL]))
        assert context.leases.living([trial.user_attrs[budget.UID]])
        raise KeyboardInterrupt

    seen, really_create = [], study._storage.create_new_trial
    monkeypatch.setattr(study._storage, "create_new_trial", create)
    with pytest.raises(KeyboardInterrupt):
        run_one(study, context)
    assert seen == [(TrialState.RUNNING, context.stage)]


def test_a_trial_that_was_cut_off_goes_on_with_its_values(study, context, finishing):
    values = cut_off(study, "cut-off").params
    assert run_one(study, context) == 1
    assert finishing == [0]
    assert states(study) == [TrialState.COMPLETE]
    assert study.trials[0].params == values
    assert study.trials[0].user_attrs[budget.UID] == "cut-off", "one identity, so one run"


def test_a_trial_that_was_begun_twice_is_two_trials(study, context, finishing):
    """As Optuna does it where a database answers no more after it has committed."""
    cut_off(study, "one")
    cut_off(study, "one")
    assert [run_one(study, context) for _ in range(2)] == [1, 1]
    assert finishing == [0, 1]
    first, second = (trial.user_attrs[budget.UID] for trial in study.trials)
    assert second == "one"
    assert first != second


def test_a_trial_killed_before_it_got_its_uid_goes_on_once_that_is_certain(
    study, context, finishing
):
    trial = cut_off(study, None)
    assert run_one(study, context) == 1
    assert finishing == [1], "the process of the first one may be about to mark it"
    stored = study._storage._get_trial(trial._trial_id)
    stored.datetime_start = datetime.now() - timedelta(minutes=2)  # noqa: DTZ005 - as Optuna
    assert run_one(study, context) == 1
    assert finishing == [1, 0]


def test_a_trial_that_another_process_is_at_is_left_to_it(study, context, finishing, tmp_path):
    with closing(Leases(f"sqlite:///{tmp_path / 'studies.db'}")) as others:
        cut_off(study, "theirs")
        assert others.take("theirs")
        for _ in range(3):
            run_one(study, context)
        assert finishing == [1, 2], "theirs has its place in the budget of three"
        assert study.trials[0].state == TrialState.RUNNING
        assert cut_off_trials(study.trials, context.leases) == []


def test_a_trial_that_has_just_ended_is_not_taken_over(study, context, finishing, monkeypatch):
    """Its process told Optuna and gave up the lease after this one had looked."""
    trial = cut_off(study, "just-ended")
    look = taken_trials.cut_off_trials

    def look_just_before_it_ends(trials, leases):
        left = look(trials, leases)
        if study.trials[0].state == TrialState.RUNNING:
            study.tell(trial, 0.5)
        return left

    monkeypatch.setattr(taken_trials, "cut_off_trials", look_just_before_it_ends)
    assert run_one(study, context) == 1
    assert finishing == [1]
    assert study.trials[0].value == 0.5
    assert not context.leases.holds("just-ended")


def test_the_budget_is_met_exactly_whoever_is_at_work(study, context, finishing):
    while run_one(study, context):
        pass
    assert states(study) == [TrialState.COMPLETE] * 3


def test_a_trial_that_kills_its_process_again_and_again_fails(study, context, client, finishing):
    cut_off(study, "deadly").set_user_attr(taken_trials.LOST, {"lost": 2})
    begun(context, "deadly").release()
    assert run_one(study, context) == 1
    assert finishing == [1], "it is not tried a fourth time"
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]
    assert "its process ended 3 times" in study.trials[0].user_attrs[budget.REASON]
    context.delivery.deliver(context.journal("deadly"))
    run = run_of(client, "deadly")
    assert run.info.status == "FAILED"
    assert run.data.tags[keys.STATE] == "failed"
    assert "its process ended 3 times" in run.data.tags[keys.FAILURE]


@pytest.mark.parametrize("was_finished", [False, True], ids=["running", "recorded as complete"])
def test_no_delivered_run_of_a_dead_trial_is_left_running(
    study, context, client, settings, was_finished
):
    uid = f"delivered-{was_finished}"
    cut_off(study, uid)
    journal = begun(context, uid)
    if was_finished:
        journal.set_tags({keys.STATE: "complete"})
        journal.finish("FINISHED")
        context.delivery.deliver(journal)
    journal.release()  # as the end of its process does
    assert run_of(client, uid).info.status == ("FINISHED" if was_finished else "RUNNING")
    context.delivery.deliver_all(settings.journal_dir)
    assert run_of(client, uid).info.status == ("FINISHED" if was_finished else "FAILED")


def test_a_store_lost_after_training_does_not_cost_the_trial(
    study, context, monkeypatch, finishing
):
    def refuse(_journal):
        raise TrackingError("the store is gone")

    monkeypatch.setattr(context.delivery, "deliver", refuse)
    with pytest.raises(TrackingError, match="the store is gone"):
        run_one(study, context)
    assert states(study) == [TrialState.COMPLETE]
    assert study.best_value == 0.75


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (KeyboardInterrupt("stop"), TrialState.RUNNING),
        (TrackingError("the store is gone"), TrialState.RUNNING),
        (StorageInternalError("a connection was dropped"), TrialState.RUNNING),
        (ZeroDivisionError("a bug"), TrialState.FAIL),
    ],
    ids=["Ctrl-C", "lost store", "lost database", "bug"],
)
def test_what_stopped_a_trial_from_outside_goes_on_later(study, context, monkeypatch, error, left):
    def stop(trial, *_args, **_kwargs):
        trial.suggest_float("optimizer/learning_rate", 0.001, 0.01)
        yield from ()
        raise error

    monkeypatch.setattr(taken_trials, "run_trial", stop)
    with pytest.raises(type(error), match=str(error)):
        run_one(study, context)
    assert states(study) == [left]
    assert not budget.counts_towards_budget(study.trials[0])
    waits = [0] if left == TrialState.RUNNING else []
    assert cut_off_trials(study.trials, context.leases) == waits


def test_an_interrupted_trial_that_goes_on_has_lost_no_process(study, context, monkeypatch):
    def stop(*_args, **_kwargs):
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(taken_trials, "run_trial", stop)
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                run_one(study, context)
    assert states(study) == [TrialState.RUNNING]
    assert taken_trials.LOST not in study.trials[0].user_attrs


@pytest.mark.parametrize("end", ["Ctrl-C", "killed"])
def test_seconds_of_a_trial_are_those_of_all_who_were_at_it(
    study, context, client, monkeypatch, end
):
    """Three seconds of a process that did not end it, two of the next; the pause is nobody's."""
    context.device, context.startup = Device("cpu", "cpu", "tensorflow", "float32"), {}
    context.config.objective = "auroc"
    parts = [3, 2]
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: False)

    def train(trial, _context, *, uid, timer, **_kwargs):
        record = TrialRecord(context, uid=uid, number=trial.number)
        with recorded(record, timer, delivers=False):
            with timer.measure("train"):
                clock.now += parts.pop(0)
            record.add_epoch(0, EpochReport(0, "all", 0.5, 0.6, 0.7, 1e-3))
            yield from ()
            if parts:
                raise KeyboardInterrupt
            record.reuse(0, 0.75)
        return 0.75

    monkeypatch.setattr(taken_trials, "run_trial", train)
    with monkeypatch.context() as patch:
        if end == "killed":  # nothing is told any more, to nobody
            patch.setattr(taken_trials.TakenTrial, "give_back", lambda *_: None)
            patch.setattr(TrialRecord, "close", lambda record: record.journal.release())
        with pytest.raises(KeyboardInterrupt):
            run_one(study, context)
    context.leases.close()
    clock.now += 1000
    with closing(Leases(str(context.leases._engine.url))) as leases:
        context.leases = leases
        assert run_one(study, context) == 1
    [trial] = study.trials
    assert trial.user_attrs[budget.SECONDS] == 5
    metrics = run_of(client, trial.user_attrs[budget.UID]).data.metrics
    assert (metrics["seconds/total"], metrics["seconds/train"]) == (5, 5)
    assert metrics["seconds/logging"] > 0


def test_seconds_of_a_finalist_that_met_a_bug_are_told_once_all_of_them(
    context, client, monkeypatch
):
    """It goes on when the bug is mended; what was told before could not be told again."""
    context.device, context.startup = Device("cpu", "cpu", "tensorflow", "float32"), {}
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(timing, "time", clock)

    def train(seconds: float) -> None:
        options = {"uid": "finalist", "number": 0, "role": keys.ROLE_FINALIST, "lease": "work"}
        record = TrialRecord(context, **options)
        with recorded(record, Timer(record.checkpoint.seconds())):
            clock.now += seconds
            if seconds == 3:
                raise RuntimeError("a bug")
            record.complete_refit()

    assert context.leases.take("work")
    with pytest.raises(RuntimeError, match="a bug"):
        train(3)
    assert run_of(client, "finalist").info.status == "FAILED"
    assert "seconds/total" not in run_of(client, "finalist").data.metrics
    train(2)
    run = run_of(client, "finalist")
    assert (run.info.status, run.data.metrics["seconds/total"]) == ("FINISHED", 5)


def test_seconds_of_a_trial_that_is_given_up_are_told(study, context, client, finishing):
    uid = "lost too often"
    trial = cut_off(study, uid)
    trial.set_user_attr(taken_trials.LOST, {"lost": 2})
    context.checkpoints.of(uid).note_seconds({"train": 6.0, "total": 7.0})
    run_one(study, context)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs[budget.SECONDS] == 7
    assert run_of(client, uid).data.metrics["seconds/total"] == 7


def test_a_database_that_is_away_when_a_trial_is_given_back_costs_it_no_attempt(
    study, context, finishing, monkeypatch
):
    def stop(*_args, **_kwargs):
        yield from ()
        raise StorageInternalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(taken_trials, "run_trial", stop)
        patch.setattr(taken_trials.TakenTrial, "_give_back", lambda *_: stop().send(None))
        with pytest.raises(StorageInternalError):
            run_one(study, context)
    context.leases.close()  # its process has ended
    with closing(Leases(str(context.leases._engine.url))) as leases:
        context.leases = leases
        assert run_one(study, context) == 1
    [trial] = study.trials
    assert trial.state == TrialState.COMPLETE
    assert taken_trials.LOST not in trial.user_attrs


def test_a_trial_that_a_process_was_lost_with_is_not_trained_beside_others(
    study, context, finishing, monkeypatch
):
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: True)
    sizes = []

    def note(runs):
        sizes.append(len(runs))
        return ["complete"] * len(runs)

    monkeypatch.setattr(worker, "run_together", note)
    cut_off(study, "was-lost")
    of_8 = SimpleNamespace(until=8)
    assert worker.run_batch(study, context, of_8, at_most=4) == ["complete"]
    assert sizes == [0]
    assert worker.run_batch(study, context, of_8, at_most=4) == ["complete"] * 4
    assert sizes == [0, 4]


def test_seconds_of_a_trial_are_counted_over_all_that_were_at_it_and_when_it_fails(
    study, context, monkeypatch
):
    ends: list[BaseException] = [KeyboardInterrupt(), TrialFailure("nan in epoch 3")]

    def stop(*_args, timer, **_kwargs):
        timer.seconds["total"] = timer.seconds.get("total", 0.0) + 60.0
        yield from ()
        raise ends.pop(0)

    monkeypatch.setattr(taken_trials, "run_trial", stop)
    with pytest.raises(KeyboardInterrupt):
        run_one(study, context)
    assert run_one(study, context) == 1
    [trial] = study.trials
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs[budget.SECONDS] == 120.0
    assert budget.cause_of(trial) == "nan in epoch …"


def test_trials_that_fail_alike_but_for_their_numbers_end_the_study(study):
    for epoch in range(3):
        trial = study.ask()
        trial.set_user_attr(budget.REASON, f"not finite in epoch {epoch}; received loss nan")
        trial.set_user_attr(budget.CAUSE, budget.without_numbers(f"not finite in epoch {epoch}"))
        study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(StudyError, match="all 3 trials failed for the same reason .*in epoch 2"):
        worker._stop_if_hopeless(study, since=time.time())


def test_what_breaks_in_the_middle_of_a_study_ends_the_run_and_not_the_next_one(
    study, context, monkeypatch
):
    def train(trial, *_args, **_kwargs):
        yield from ()
        if trial.number:
            raise TrialFailure(f"the device is lost at step {trial.number}")
        return 0.75

    monkeypatch.setattr(taken_trials, "run_trial", train)
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: False)
    monkeypatch.setattr(worker, "in_stage", lambda known, _: known)
    content = {"name": "s", "task": "binary", "objective": "auroc", "search": {"trials": 40}}
    context.config = StudyConfig.model_validate(content)
    context.split = SimpleNamespace(folds=[0])
    with pytest.raises(StudyError, match="the last 10 trials failed for the same reason"):
        worker.run_search(study, context, worker.WorkerLimits(began=time.time()))
    assert states(study) == [TrialState.COMPLETE] + [TrialState.FAIL] * 10
    with pytest.raises(StudyError, match="the last 10 trials failed for the same reason"):
        worker.run_search(study, context, worker.WorkerLimits(began=time.time()))
    assert len(study.trials) == 21, "it tried anew"


def test_an_end_that_the_database_does_not_take_leaves_the_trial_where_it_was(
    study, context, monkeypatch
):
    def prune(trial, *_args, **_kwargs):
        context.checkpoints.write(
            tmp := context.checkpoints.of(trial.user_attrs[budget.UID])._state_file("fold_0"),
            {},
            {"history": [1, 2]},
        )
        context.checkpoints.settle()
        assert tmp.exists()
        yield from ()
        raise optuna.TrialPruned("not worth it")

    def refuse(*_args, **_kwargs):
        raise StorageInternalError("a connection was dropped")

    monkeypatch.setattr(taken_trials, "run_trial", prune)
    monkeypatch.setattr(taken_trials, "trains_only_a_head", lambda *_: False)
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", refuse)
        with pytest.raises(StorageInternalError, match="dropped"):
            run_one(study, context)
    [trial] = study.trials
    assert trial.state == TrialState.RUNNING
    assert context.checkpoints.of(trial.user_attrs[budget.UID]).epochs() == 2
    assert cut_off_trials(study.trials, context.leases) == [0]


def test_processes_that_are_lost_now_and_then_cost_no_trial_that_goes_on(study, context, finishing):
    """A machine that is restarted every day: the trial comes an epoch further every time."""
    trial = cut_off(study, "long")
    for reached, lost, signs in ((0, 1, 1), (0, 2, 2), (3, 1, 2), (3, 2, 2), (4, 1, 3)):
        file = context.checkpoints.of("long")._state_file("fold_0")
        context.checkpoints.write(file, {}, {"history": [0] * reached})
        context.checkpoints.settle()
        taken = taken_trials.TakenTrial.next(study, context, STAGE)
        assert taken is not None
        assert taken.trial.number == trial.number
        assert study.trials[0].user_attrs[taken_trials.LOST]["lost"] == lost
        assert taken.lost == signs, "memory may be short all the same"
        context.leases.release("long")


def test_the_time_of_a_run_is_one_for_all_its_processes(study, context, finishing, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(worker, "in_stage", lambda known, _: known)
    context.observer = SilentObserver()
    context.observer.search_stopped = told.append
    context.config = StudyConfig.model_validate(
        {
            "name": "s",
            "task": "binary",
            "objective": "auroc",
            "search": {"timeout": "1h", "trials": 3},
        }
    )
    context.split = SimpleNamespace(folds=[0])
    an_hour_ago = worker.WorkerLimits(began=time.time() - 3700)
    worker.run_search(study, context, an_hour_ago)
    assert finishing == []
    assert told == ["its time is up (search.timeout)"]
    assert study.user_attrs[STOPPED] == told[0], "the report tells it"
    search = context.config.search.model_copy(update={"timeout": None})
    context.config = context.config.model_copy(update={"search": search})
    worker.run_search(study, context)
    assert study.user_attrs[STOPPED] == "", "it went on"


@pytest.mark.parametrize(
    ("limit", "trials"),
    [({"target": 0.7}, 1), ({"patience": 1}, 2), ({"device_hours": 1e-9}, 1), ({}, 3)],
    ids=["target", "patience", "device_hours", "none"],
)
def test_a_limit_ends_the_search_before_its_number_of_trials(
    study, context, finishing, monkeypatch, limit, trials
):
    context.config.search = SearchConfig(**limit)
    seconds = taken_trials.Timer()
    seconds.seconds["total"] = 60.0
    monkeypatch.setattr(taken_trials, "Timer", lambda: seconds)
    while run_one(study, context):
        pass
    assert len(study.trials) == trials
    assert (worker.why_stopped(study, context) is None) == (limit == {})
