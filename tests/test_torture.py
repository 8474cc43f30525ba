"""Small versions of `make torture`: its fuzzer on few cases, and what its kills are made of."""

import subprocess

from torture.demo import Demo, Run
from torture.fuzz import check_files, check_run_lengths, make_kinds
from torture.kills import AT_ITS_END, MEANS, Clean, Report, compare, plan


def test_random_run_lengths_are_decoded_as_by_a_plain_loop_or_refused():
    assert check_run_lengths(2000, seed=1) == []


def test_mutated_files_of_every_kind_are_read_or_refused_in_a_short_message(tmp_path):
    kinds = make_kinds(tmp_path)
    *faults, outcomes = check_files(kinds, range(10 * len(kinds)), 1, tmp_path)
    assert faults == []
    assert '"read"' in outcomes
    assert '"refused"' in outcomes


def test_the_kills_use_every_means_at_every_stage_and_at_the_end_of_processes():
    chains = list(plan(200, 11))
    assert sum(len(stages) for _, _, stages in chains) == 200
    assert {means for means, _, _ in chains} == set(MEANS)
    assert {fraction for _, fraction, _ in chains} > {AT_ITS_END, 0.1, 0.5, 0.97}
    assert chains[0][2] == list(range(11))


def test_a_result_that_differs_is_a_fault(tmp_path):
    demo, report = Demo(tmp_path / "demo", tmp_path), Report()
    (demo.folder / "submissions").mkdir()
    (demo.folder / "submissions/first.csv").write_text("a")
    compare(demo, Clean([], [], [], demo.digests()), "same", report)
    assert report.faults == []
    (demo.folder / "submissions/first.csv").write_text("b")
    compare(demo, Clean([], [], [], {"submissions/first.csv": ""}), "other", report)
    assert report.faults == ["other: submissions/first.csv is not that of the undisturbed run"]


def test_a_stage_has_one_name_in_all_folders_and_folds_have_their_own(tmp_path):
    names = []
    for folder in ("chain_1", "chain_2"):
        log = tmp_path / f"{folder}.txt"
        commands = [
            f"python scripts/train.py --fold {fold} \\\n  --out {tmp_path}/{folder}/runs\n" for fold in (0, 1)
        ]
        log.write_text("".join(commands) + "epoch 1: scripts\n")
        ended = subprocess.Popen(["true"], text=True)
        ended.wait()
        run = Run(ended, log, tmp_path / folder)
        run.poll()
        names.append([stage for _, stage in run.began])
    assert names[0] == names[1]
    assert len(set(names[0])) == 2
