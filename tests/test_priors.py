import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from priors import PLANAR_PRIORS, PRIORS
from utils import registry

K = 10
N = 20_000


def make(name, n_z=2):
    return registry.load(PRIORS, name)(n_z, K)


def all_labels():
    return np.arange(N, dtype=np.int32) % K


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("n_z", [2, 6])
def test_samples_have_the_right_shape_and_depend_on_the_seed_alone(name, n_z):
    prior = make(name, n_z)
    for labels in (None, all_labels()):
        first, again, other = (prior.sample(N, seed, labels).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
        assert first.shape == (N, n_z)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(first, again)
        # No code is drawn twice, neither within a sample nor with the next seed.
        assert len(np.unique(np.concatenate([first, other]), axis=0)) > 1.99 * N


def test_sampled_labels_are_uniform():
    labels = make("gaussian").sample_labels(N, [0, 0]).numpy()
    assert stats.chisquare(np.bincount(labels, minlength=K)).pvalue > 1e-3


def test_sampled_labels_have_their_shares():
    prior = make("gaussian")
    shares = np.float32([0, 4, 1, 0, 0, 2, 1, 1, 1, 0]) / 10
    prior.label_shares = tf.Variable(shares)
    labels = prior.sample_labels(tf.constant(N), [0, 0]).numpy()
    assert labels.dtype == np.int32
    found = np.bincount(labels, minlength=K)
    np.testing.assert_array_equal(found[shares == 0], 0)
    assert stats.chisquare(found[shares > 0], N * shares[shares > 0]).pvalue > 1e-3
    np.testing.assert_array_equal(prior.sample_labels(N, [0, 0]), labels)
    assert np.mean(prior.sample_labels(N, [0, 1]) != labels) > 0.5


@pytest.mark.parametrize("n_z", [1, 2, 5, 20])
def test_gaussian_is_standard_normal(n_z):
    prior = make("gaussian", n_z)
    codes = prior.sample(N, [0, 1]).numpy()
    for axis in codes.T:
        assert stats.kstest(axis, "norm").pvalue > 1e-3
    np.testing.assert_allclose(
        prior.log_prob(codes[:50]), stats.multivariate_normal(np.zeros(n_z)).logpdf(codes[:50]), rtol=1e-4
    )


@pytest.mark.parametrize("n_z", [2, 8])
def test_a_wide_gaussian_is_the_standard_one_stretched(n_z):
    wide, plain = registry.load(PRIORS, "gaussian")(n_z, K, std=5.0), make("gaussian", n_z)
    for labels in (None, all_labels()):
        codes = wide.sample(N, [0, 1], labels).numpy()
        np.testing.assert_allclose(codes, 5 * plain.sample(N, [0, 1], labels).numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        wide.log_prob(codes[:50]), stats.multivariate_normal(np.zeros(n_z), 25).logpdf(codes[:50]), rtol=1e-4
    )
    if n_z == 2:
        np.testing.assert_array_equal(wide.classify(codes), all_labels())
        np.testing.assert_allclose(wide.component_paths(7), 5 * plain.component_paths(7), rtol=1e-5)


def test_labelled_gaussian_regions_have_equal_mass_and_make_up_the_normal():
    prior = make("gaussian")
    unlabelled = prior.sample(N, [0, 1])
    assert stats.chisquare(np.bincount(prior.classify(unlabelled), minlength=K)).pvalue > 1e-3
    # Drawing every label equally often gives back the standard normal.
    codes = prior.sample(N, [0, 2], all_labels()).numpy()
    np.testing.assert_array_equal(prior.classify(codes), all_labels())
    for axis in codes.T:
        assert stats.kstest(axis, "norm").pvalue > 1e-3


def test_labelled_gaussian_density_is_the_normal_restricted_to_the_region():
    prior = make("gaussian")
    codes = prior.sample(100, [0, 3])
    regions = prior.classify(codes).numpy()
    normal = stats.multivariate_normal(np.zeros(2)).logpdf(codes)
    np.testing.assert_allclose(prior.log_prob(codes, regions), normal + np.log(K), rtol=1e-4)
    assert np.isneginf(prior.log_prob(codes, (regions + 1) % K)).all()


def test_labels_say_nothing_about_a_gaussian_code_off_the_plane():
    prior = make("gaussian", 20)
    assert not prior.uses_labels
    np.testing.assert_array_equal(prior.sample(10, [0, 1], all_labels()[:10]), prior.sample(10, [0, 1]))


@pytest.mark.parametrize("n_z", [1, 2, 50])
def test_truncated_gaussian_is_the_normal_within_two_deviations(n_z):
    prior, reference = make("truncated_gaussian", n_z), stats.truncnorm(-2, 2)
    assert not prior.uses_labels
    codes = prior.sample(N, [0, 1]).numpy()
    assert np.abs(codes).max() <= 2
    assert np.min([stats.kstest(axis, reference.cdf).pvalue for axis in codes.T]) > 1e-4
    expected = reference.logpdf(codes[:50]).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob(codes[:50]), expected, rtol=1e-4)
    codes[0, 0] = 2.01
    assert np.isneginf(prior.log_prob(codes[:1])).all()


def mixture_component(k):
    """Component k of the mixture, written out from the seed's formula."""
    r = 2 * np.pi * k / K
    rotation = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    covariance = rotation @ np.diag([0.5**2, 0.1**2]) @ rotation.T
    return stats.multivariate_normal(1.4 * np.array([np.cos(r), np.sin(r)]), covariance)


@pytest.mark.parametrize("n_z", [2, 4])
def test_mixture_density(n_z):
    prior = make("gaussian_mixture", n_z)
    codes = np.random.default_rng(0).normal(size=(60, n_z)).astype(np.float32)
    pairs = codes.reshape(60, n_z // 2, 2)
    per_component = np.stack([mixture_component(k).logpdf(pairs).reshape(60, -1) for k in range(K)])
    mixture = np.log(np.exp(per_component).mean(axis=0)).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob(codes), mixture, rtol=1e-3, atol=1e-3)
    labels = all_labels()[:60]
    joint = per_component.sum(axis=2)
    np.testing.assert_allclose(prior.log_prob(codes, labels), joint[labels, np.arange(60)], rtol=1e-3)
    np.testing.assert_array_equal(prior.classify(codes), joint.argmax(axis=0))


def test_mixture_samples_follow_their_component():
    codes = make("gaussian_mixture").sample(N, [0, 1], all_labels()).numpy()
    for k in range(K):
        own, component = codes[all_labels() == k], mixture_component(k)
        np.testing.assert_allclose(own.mean(axis=0), component.mean, atol=0.05)
        np.testing.assert_allclose(np.cov(own.T), component.cov, atol=0.02)


def test_swiss_roll_codes_lie_on_the_curve():
    labels = all_labels()
    codes = make("swiss_roll").sample(N, [0, 1], labels).numpy().astype(np.float64)
    t = (np.linalg.norm(codes, axis=1) / 3) ** 2
    np.testing.assert_array_less(np.abs(t * K - labels - 0.5), 0.5 + 1e-3)
    angle = 4 * np.pi * np.sqrt(t)
    expected = 3 * np.sqrt(t)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(codes, expected, atol=1e-4)
    assert stats.kstest(t, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(PLANAR_PRIORS))
def test_pairs_share_a_given_label_and_are_independent_without_one(name):
    prior, planar = make(name, 4), make(name, 2)
    for labels, expected in ((all_labels()[:4000], 1.0), (None, 1 / K)):
        codes = prior.sample(4000, [0, 1], labels)
        first, second = planar.classify(codes[:, :2]).numpy(), planar.classify(codes[:, 2:]).numpy()
        # Neighbouring components of the mixture overlap a little.
        assert np.mean(first == second) == pytest.approx(expected, abs=0.04)


# Those with a part for every label.
LABELLED = [name for name in PRIORS if make(name).uses_labels]


@pytest.mark.parametrize("name", LABELLED)
def test_classify_recovers_the_label_of_a_sample(name):
    prior = make(name)
    codes = prior.sample(N, [0, 1], all_labels())
    assert np.mean(prior.classify(codes) == all_labels()) > 0.98


@pytest.mark.parametrize("name", LABELLED)
def test_component_paths_stay_in_their_component(name):
    prior = make(name)
    paths = prior.component_paths(15)
    assert paths.shape == (K, 15, 2)
    # The innermost code of each petal of the mixture lies among its neighbours.
    found = prior.classify(paths[:, 1:].reshape(-1, 2)).numpy()
    np.testing.assert_array_equal(found, np.repeat(np.arange(K), 14))


def test_support_holds_all_but_a_hundredth_of_each_axis():
    low, high = make("gaussian", 3).support()
    np.testing.assert_allclose([low, high], [[-2.576] * 3, [2.576] * 3], atol=0.1)
    low, high = make("truncated_gaussian", 3).support()
    assert np.all(np.abs([low, high]) <= 2)


def test_percentile_grid_of_the_gaussian_is_its_inverse_cdf():
    grid = make("gaussian").percentile_grid(10)
    levels = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    np.testing.assert_allclose(grid[0, :, 0], levels, atol=0.02)
    np.testing.assert_allclose(grid[:, 0, 1], levels[::-1], atol=0.02)


@pytest.mark.parametrize("name", PRIORS)
def test_priors_work_inside_a_graph(name):
    prior = make(name)
    draw = tf.function(lambda labels: prior.sample(tf.shape(labels)[0], [3, 4], labels))
    np.testing.assert_allclose(
        draw(all_labels()), prior.sample(N, [3, 4], all_labels()), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("prior", PRIORS)
def test_a_single_class(prior):
    made = registry.load(PRIORS, prior)(2, 1)
    codes = made.sample(500, [1, 2], np.zeros(500, np.int32)).numpy()
    assert np.isfinite(codes).all()
    assert codes.std() > 0.1
