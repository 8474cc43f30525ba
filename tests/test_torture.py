"""Small versions of `make torture`: its fuzzer on few cases, and what its kills are made of."""

import os
import subprocess
from collections import Counter

import pytest
from torture.attacks import STRIKES, Moment, Stage, wait_for
from torture.demo import Demo, Run, state
from torture.fuzz import check_files, check_run_lengths, read_good_files
from torture.kills import check_whole, differences, plan, plan_others, shows_traceback
from torture.kinds import make_kinds


def test_random_run_lengths_are_decoded_as_by_a_plain_loop_or_refused():
    assert check_run_lengths(2000, seed=1) == []


def test_mutated_files_of_every_kind_are_read_or_refused_in_a_short_message(tmp_path):
    kinds = make_kinds(tmp_path)
    assert read_good_files(kinds, tmp_path) == []
    *faults, outcomes = check_files(kinds, range(5 * len(kinds)), 1, tmp_path)
    assert faults == []
    assert '"read"' in outcomes
    assert '"refused"' in outcomes


def test_the_kills_use_every_means_at_every_stage_and_spread_over_its_time():
    cases = plan(200, 14)
    assert len(cases) == 200
    assert set(Counter(case.stage for case in cases).values()) <= {14, 15}
    assert {case.name for case in cases} == {strike.__name__ for strike in STRIKES}
    for stage in range(14):
        moments = [case.moment for case in cases if case.stage == stage]
        places = sorted(moment.fraction for moment in moments if not moment.at_its_end)
        assert 3 <= sum(moment.at_its_end for moment in moments) <= 4
        assert max(after - before for before, after in zip([0, *places], [*places, 1], strict=True)) < 0.15
    others = Counter(case.name for case in plan_others(14))
    assert others == {"two makes at once": 14, "two makes at once, one killed": 14, "full disk": 14}


@pytest.fixture
def demo(tmp_path) -> Demo:
    demo = Demo(tmp_path / "place", tmp_path / "archive")
    demo.fill()
    return demo


def test_what_differs_from_the_undisturbed_run_is_a_fault_and_times_do_not_count(demo):
    fold = demo.folder / "runs/first/fold_0"
    fold.mkdir(parents=True)
    log = "epoch,step,loss,learning_rate,validation_score,minutes\n1,2,0.5,0.1,,{}\n"
    (fold / "log.csv").write_text(log.format(1.5))
    (fold / "model.pt").write_text("whole")
    before = state(demo.folder)
    (fold / "log.csv").write_text(log.format(2.5))
    assert differences(state(demo.folder), before) == []
    (fold / "model.pt").write_text("cut")
    (fold / ".model.pt.tmp").write_text("left")
    assert differences(state(demo.folder), before) == [
        "runs/first/fold_0/.model.pt.tmp is not that of the undisturbed run, which has none",
        "runs/first/fold_0/model.pt is not that of the undisturbed run",
    ]
    stage = Stage("", "", 1, demo.folder, demo.folder)
    assert check_whole(demo, stage, {}) == ["runs/first/fold_0/model.pt is there and not whole"]


def observe(demo: Demo, script: str, **told: str) -> Run:
    """A run whose stage is a shell script, so that nothing is imported."""
    notes, log = demo.logs / "began.txt", demo.logs / "log.txt"
    told = {"TORTURE_PYTHON": "/bin/sh", "TORTURE_BEGAN": str(notes), **told}
    (demo.folder / "scripts").mkdir(exist_ok=True)
    (demo.folder / "scripts/train.py").write_text(script)
    command = [demo.observer, "scripts/train.py", f"{demo.folder}/runs"]
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=demo.folder, env=os.environ | told, stdout=out, stderr=out, text=True
        )
    return Run(process, log, notes, demo.folder)


def test_a_stage_is_noted_with_its_process_under_one_name_in_all_folders_and_may_be_refused(demo):
    run = observe(demo, "exit 3")
    assert run.wait() == 3
    assert run.began == [(run.process.pid, "scripts/train.py ./runs")]
    refused = observe(demo, "exit 3", TORTURE_ONLY="scripts/predict.py")
    assert refused.wait() == 99


def test_the_moment_of_a_kill_is_a_fraction_of_its_processor_time_or_the_last_file(demo):
    run = observe(demo, "echo > done; sleep 20")
    stage = Stage("scripts/train.py ./runs", "done", 100, demo.folder, demo.folder)
    process = wait_for(run, demo, stage, Moment(at_its_end=True))
    assert process == run.process.pid
    assert (demo.folder / "done").exists()
    STRIKES[2](run, process)
    assert run.wait() == -9


def test_a_traceback_counts_but_for_a_ctrl_c_while_python_starts(tmp_path):
    def says(text: str) -> bool:
        (tmp_path / "log").write_text("Traceback (most recent call last)\n" + text)
        return shows_traceback(Run(None, tmp_path / "log", tmp_path, tmp_path))

    started = '  File "/x/scripts/otsu.py", line 3, in <module>\n    import argparse\nKeyboardInterrupt\n'
    assert not says(started)
    assert says(started.replace("import argparse", "raise SystemExit(run(main))"))
    assert says(started.replace("KeyboardInterrupt", "ImportError"))
