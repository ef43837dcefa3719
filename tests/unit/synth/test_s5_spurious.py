import pytest
import torch

from saelab.synth.world import World
from saelab.synth.worlds.s5_spurious import ENTRIES, SpuriousFactor, build
from saelab.types import Labelled, Tokens, Windows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlation(labels):
    return float(torch.corrcoef(labels.T.double())[0, 1])


def process_of(name):
    return ENTRIES[name].build(0, **ENTRIES[name].settings)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_first_spurious_direction_is_as_near_to_the_task_as_asked(name):
    task, spurious = process_of(name).features[:2]
    assert float(task @ spurious) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("name", ENTRIES)
def test_k_is_one_below_the_mean_number_of_active_features(name):
    codes = process_of(name).draw(50_000, generator()).codes
    assert float((codes > 0).sum(1).double().mean()) - 1 == pytest.approx(
        ENTRIES[name].setup.k, abs=0.04
    )


def test_the_activations_are_the_codes_times_the_features_and_noise():
    process = build(0, noise=0.0)
    sample = process.draw(500, generator())
    torch.testing.assert_close(sample.x, sample.codes @ process.features)
    noisy = build(0, noise=0.5)
    sample = noisy.draw(20_000, generator())
    assert float((sample.x - sample.codes @ noisy.features).std()) == pytest.approx(0.5, rel=0.02)


def test_amplitudes_and_frequencies():
    sample = process_of("s5").draw(100_000, generator())
    active = sample.codes[sample.codes > 0]
    assert float(active.mean()) == pytest.approx(1.0, abs=0.01) and float(
        active.std()
    ) == pytest.approx(0.2, abs=0.01)
    shares = (sample.codes > 0).double().mean(0)
    assert torch.allclose(shares[:2], torch.tensor(0.3).double(), atol=0.01)
    assert torch.allclose(shares[2:], torch.tensor(0.05).double(), atol=0.005)


@pytest.mark.parametrize(("name", "expected"), [("s5", 0.9), ("s5b", 0.9), ("s5_null", 0.0)])
def test_natural_labels_have_the_correlation_of_the_world(name, expected):
    sample = process_of(name).draw(50_000, generator())
    assert correlation(sample.labels) == pytest.approx(expected, abs=0.015)
    assert torch.allclose(sample.labels.double().mean(0), torch.tensor(0.3).double(), atol=0.01)
    assert torch.equal(sample.codes[:, 0] > 0, sample.labels[:, 0] > 0)


def test_the_null_differs_from_s5_in_nothing_but_the_correlation():
    assert torch.equal(process_of("s5").features, process_of("s5_null").features)
    sample = process_of("s5_null").draw(50_000, generator())
    active = (sample.codes > 0).double()
    assert abs(correlation(active[:, :2])) < 0.015


def test_a_spread_factor_drives_six_directions_and_only_where_it_is_present():
    process = process_of("s5b")
    sample = process.draw(50_000, generator())
    active = sample.codes[:, 1:7] > 0
    present = sample.labels[:, 1] > 0
    assert len(process.groups["spurious"]) == 6 and not active[~present].any()
    assert torch.allclose(active[present].double().mean(0), torch.tensor(0.6).double(), atol=0.015)
    assert abs(correlation(active[present][:, :2])) < 0.03


def test_modes_say_how_the_factors_go_together():
    process = process_of("s5")

    def share(mode):
        labels = process.draw(8_000, generator(), mode=mode).labels
        return torch.bincount(2 * labels[:, 0] + labels[:, 1], minlength=4) / 8_000

    assert torch.equal(share("balanced"), torch.full((4,), 0.25))
    assert torch.equal(share("concordant"), torch.tensor([0.5, 0, 0, 0.5]))
    assert torch.allclose(share("decorrelated"), torch.tensor([0.49, 0.21, 0.21, 0.09]), atol=0.02)
    assert torch.allclose(share("natural"), torch.tensor([0.679, 0.021, 0.021, 0.279]), atol=0.02)
    with pytest.raises(
        ValueError, match="mode is 'odd'; it must be natural, decorrelated, balanced or concordant"
    ):
        process.draw(8, generator(), mode="odd")


def test_a_labelled_batch_knows_s_everywhere_and_the_task_in_a_tenth():
    process = process_of("s5")
    batch, plain = (
        process.labelled(400, generator()),
        process.draw(400, generator(), mode="balanced"),
    )
    assert torch.equal(batch.x, plain.x)
    assert torch.equal(batch.labels[:, 1], plain.labels[:, 1])
    assert torch.equal(batch.labels[:40, 0], plain.labels[:40, 0])
    assert (batch.labels[40:, 0] == -1).all()
    assert torch.equal(
        torch.bincount(2 * batch.labels[:40, 0] + batch.labels[:40, 1]), torch.full((4,), 10)
    )


def test_the_order_of_a_world_means_nothing_so_it_has_no_windows():
    world = World("s5", build(0), seed=0, batch=16)
    assert world.kinds == (Tokens, Labelled) and world.lm is None
    with pytest.raises(ValueError, match="no windows"):
        next(world.batches(Windows, None))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"correlation": 1.5}, "correlation is 1.5; it must be from 0 to 1"),
        ({"frequency": 0.0}, "frequency is 0; it must be from 0.05 to 0.95"),
        ({"chance": -0.1}, "chance is -0.1; it must be from 0 to 1"),
        ({"p": 2}, "p is 2; it must be from 0 to 1"),
        ({"cosine": 1}, "cosine is 1; it must be from -0.95 to 0.95"),
        ({"noise": -1}, "noise is -1; it must be at least 0"),
        ({"n_spurious": 0}, "n_spurious is 0; it must be at least 1"),
        ({"n_spurious": 6, "n_features": 6}, "n_features is 6; it must be at least 7"),
        ({"d": 1}, "d is 1; it must be at least 2"),
    ],
)
def test_numbers_that_make_no_world_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        build(0, **settings)


def test_counts_may_arrive_as_floats():
    process = build(0, d=16.0, n_features=20.0, n_spurious=2.0)
    assert isinstance(process, SpuriousFactor)
    assert process.features.shape == (20, 16) and process.groups["spurious"] == range(1, 3)
