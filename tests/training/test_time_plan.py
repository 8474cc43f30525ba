"""The plan of `make train-all`: pure functions of measured speeds."""

import pytest

from nuclei.config import Config, TrainingConfig
from nuclei.errors import UserError
from nuclei.training.time_plan import (
    MARGIN,
    MIN_STEPS,
    Machine,
    Speed,
    Training,
    divide_machine,
    finish_time,
    in_order,
    plan_steps,
    planned_settings,
    shorten_ema,
)

GPU = Machine(device="cuda", name="one", cores=16, memory=140_000, peak=7e14)
CPU = Machine(device="cpu", name="cpu", cores=4, memory=None, peak=1e11)
SPEEDS = {
    "fast": Speed(images_per_second=200, start=15, validation=1, prediction=2, memory=1100),
    "slow": Speed(images_per_second=50, start=20, validation=1, prediction=2, memory=1500),
}


def make_training(experiment, fold, steps=1000, needs=()):
    return Training(
        experiment=experiment, fold=fold, steps=steps, batch_size=10, validation=1, prediction=20, needs=needs
    )


TRAININGS = [make_training(name, str(fold)) for name in SPEEDS for fold in range(5)]


def test_ten_trainings_on_16_cores_and_a_large_gpu_run_at_once_with_two_loaders_each():
    found = divide_machine(GPU, 10)
    assert (found.at_once, found.workers, found.threads) == (10, 2, 1)


def test_a_small_gpu_bounds_the_number_of_trainings_at_once_by_its_memory():
    assert divide_machine(GPU.model_copy(update={"memory": 15_000}), 10).at_once == 3


def test_on_a_processor_each_training_has_threads_of_its_own_and_no_loader():
    found = divide_machine(CPU, 2)
    assert (found.at_once, found.workers, found.threads) == (2, 0, 2)
    assert divide_machine(CPU, 10).at_once == 4


def test_the_number_at_once_can_be_given():
    assert divide_machine(GPU, 10, at_once=3).at_once == 3


@pytest.mark.parametrize("seconds", [200, 400, 1000])
def test_all_steps_of_a_plan_fit_into_the_time_and_use_most_of_it(seconds):
    plan = plan_steps(TRAININGS, SPEEDS, 10, seconds)
    assert 0.97 * seconds * (1 - MARGIN) < plan.seconds <= seconds * (1 - MARGIN) or plan.fraction == 1
    assert set(plan.steps) == {"fast", "slow"}


def test_every_experiment_gets_the_same_fraction_of_its_own_steps():
    trainings = [make_training("fast", "0", 4000), make_training("slow", "0", 1000)]
    plan = plan_steps(trainings, SPEEDS, 2, 150)
    assert plan.fraction < 1
    assert plan.steps["fast"] == pytest.approx(4 * plan.steps["slow"], abs=4)


def test_more_time_never_means_fewer_steps_and_never_more_than_the_config_asks_for():
    counts = [plan_steps(TRAININGS, SPEEDS, 4, seconds).steps["slow"] for seconds in (400, 800, 1600, 10**5)]
    assert counts == sorted(counts)
    assert counts[-1] == 1000


def test_too_little_time_is_refused_with_what_is_needed():
    with pytest.raises(UserError, match=r"10 trainings of 20 steps take \d+\.\d minutes here, .*MINUTES="):
        plan_steps(TRAININGS, SPEEDS, 10, 60)


def test_a_fine_tuning_begins_when_its_start_is_trained():
    start = make_training("fast", "0")
    tuned = make_training("slow", "all", needs=(start.name,))
    again = make_training("slow", "0", needs=(tuned.name,))
    durations = {start.name: 10.0, tuned.name: 5.0, again.name: 2.0}
    assert [each.name for each in in_order([again, tuned, start], durations)] == list(durations)
    assert finish_time([again, tuned, start], durations, 3) == 17.0


def test_a_free_place_takes_the_next_training():
    durations = {each.name: 10.0 for each in TRAININGS}
    assert finish_time(TRAININGS, durations, 4) == 30.0


def test_the_average_of_the_weights_spans_the_same_fraction_of_a_shorter_training():
    assert shorten_ema(0.999, 0.1) == 0.99
    assert shorten_ema(0.999, 1.0) == 0.999
    assert shorten_ema(0.9, 0.01) == 0.0
    assert shorten_ema(0.0, 0.5) == 0.0


def test_planned_settings_make_a_valid_config_with_checkpoints_in_short_distances():
    config = Config(name="slow", training=TrainingConfig(steps=1000, batch_size=10, ema_decay=0.99))
    settings = planned_settings(config, 500, SPEEDS["slow"])
    planned = TrainingConfig(**settings)
    assert planned.steps == 500
    assert planned.steps_per_epoch == 100  # 20 seconds
    assert planned.validate_every == 5
    slow = SPEEDS["slow"].model_copy(update={"images_per_second": 2.0})
    assert planned_settings(config, MIN_STEPS, slow)["steps_per_epoch"] == 6
