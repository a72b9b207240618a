"""Random numbers of fits in threads: equal fits, and nothing changed for other threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torchvision.models import mobilenet_v2

from proportion_ssl import (
    HeadClassifier,
    MobileNetV2Classifier,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    ContextClassifier,
    CountLikelihoodClassifier,
    FixMatchClassifier,
    ICTClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    MeanTeacherClassifier,
    MixBag,
    MixMatchClassifier,
    MixupClassifier,
    NLNLClassifier,
    NoisyStudentClassifier,
    ProportionLossClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.embedding.mobilenet import load_mobilenet_v2
from proportion_ssl.losses import NegativeLoss, PositiveLoss, multi_negative_loss
from proportion_ssl.nets import AdaptiveFusion
from proportion_ssl.nets.classifiers import one_thread
from proportion_ssl.nets.random_numbers import draws_locally, generator, seeded
from proportion_ssl.pseudo_labels import AdaptiveSelector

DATA = make_bags(n_bags=6, bag_size=20, random_state=0)


class ForeignModule(nn.Module):
    """Knows only torch's own generator."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, X):
        return self.layers(X)


FOREIGN = NegativePseudoLabelClassifier(NeuralNetClassifier(ForeignModule, verbose=0), max_epochs=3)
OWN = [
    NegativePseudoLabelClassifier(max_epochs=3, epoch_size=64),
    RobustProportionClassifier(),
    AssignmentClassifier(max_epochs=2),
    FixMatchClassifier(max_epochs=2),
    ICTClassifier(max_epochs=2),
    LLPGANClassifier(max_epochs=2),
    LLPVATClassifier(max_epochs=2),
    MeanTeacherClassifier(max_epochs=2),
    MixMatchClassifier(max_epochs=2),
    MixupClassifier(max_epochs=2),
    NLNLClassifier(max_epochs=2),
    NoisyStudentClassifier(max_epochs=2, n_rounds=2),
    ProportionLossClassifier(augmentation=MixBag(), max_epochs=2),
    SoftMatchClassifier(max_epochs=2),
    VATClassifier(max_epochs=2),
    ContextClassifier(max_epochs=1, n_folds=2),
    CountLikelihoodClassifier(max_epochs=2),
]


def name_of(model):
    return "foreign net" if model is FOREIGN else type(model).__name__


def fit(model, seed):
    model = clone(model).set_params(random_state=seed)
    return model.fit(DATA.X_labeled, DATA.y, DATA.bags).predict_proba(DATA.X_test)


@pytest.fixture
def torch_state():
    torch.manual_seed(5)
    return torch.get_rng_state()


@pytest.mark.slow
@pytest.mark.parametrize("model", [*OWN, FOREIGN], ids=name_of)
def test_fits_in_threads_are_equal_and_leave_torchs_generator(model, torch_state):
    jobs = [0, 1, 2, 0]
    alone = [fit(model, seed) for seed in jobs]
    assert torch.equal(torch.get_rng_state(), torch_state)
    for _ in range(2):
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda seed: fit(model, seed), jobs))
        assert_array_equal(together, alone)
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.slow
@pytest.mark.parametrize("model", [OWN[0], OWN[1], FOREIGN], ids=name_of)
def test_threads_and_processes_of_joblib(model):
    alone = [fit(model, seed) for seed in range(4)]
    for backend in ("threading", "loky"):
        found = Parallel(4, backend=backend)(delayed(fit)(model, seed) for seed in range(4))
        assert_array_equal(found, alone)


@pytest.mark.parametrize("model", OWN, ids=name_of)
def test_own_parts_do_not_draw_from_torchs_generator_at_all(model, torch_state, monkeypatch):
    """Neither seeded nor restored: what another thread draws meanwhile is as if there were no fit."""
    monkeypatch.setattr(torch, "manual_seed", None)
    monkeypatch.setattr(torch.random, "fork_rng", None)
    fit(model, 0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    expected = torch.rand(3)
    fit(model, 1)
    assert torch.equal(torch.rand(3, generator=at(torch_state, skip=3)), torch.rand(3))
    assert torch.equal(expected, torch.rand(3, generator=at(torch_state)))


def at(state, skip=0):
    """A generator in a state of torch's."""
    found = torch.Generator()
    found.set_state(state)
    torch.rand(skip, generator=found)
    return found


@pytest.mark.slow
def test_several_fields_of_view(torch_state):
    for model in (
        MultiFieldOfViewNet(2, fusion=AdaptiveFusion()),
        MultiFieldOfViewNet(2, expert=LogisticRegression()),
    ):

        def probabilities(seed, model=model):
            fitted = clone(model).set_params(random_state=seed).fit(DATA.X_labeled, DATA.y)
            return fitted.predict_proba(DATA.X_test)

        alone = [probabilities(seed) for seed in range(3)]
        with ThreadPoolExecutor(3) as threads:
            assert_array_equal(list(threads.map(probabilities, range(3))), alone)
        assert torch.equal(torch.get_rng_state(), torch_state)


class Interrupt(AdaptiveSelector):
    """Ctrl-C in the first round."""

    def select(self, probabilities, bag_index, bag_proportions):
        raise KeyboardInterrupt


@pytest.mark.parametrize("net", [None, FOREIGN.estimator], ids=["own", "foreign"])
def test_an_interrupted_fit_leaves_the_generators_as_they_were(net, torch_state):
    model = NegativePseudoLabelClassifier(net, positive_selector=Interrupt(), max_epochs=2)
    n_threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        model.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert generator() is None
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == n_threads
    alone = fit(FOREIGN, 3)
    with ThreadPoolExecutor(1) as other:  # the lock is free again
        assert_array_equal(other.submit(fit, FOREIGN, 3).result(timeout=60), alone)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (HeadClassifier(), True),
        (MobileNetV2Classifier(weights=None), True),
        (HeadClassifier(criterion__positive=PositiveLoss()), True),
        (HeadClassifier(criterion__positive=nn.RReLU()), False),
        (HeadClassifier(criterion__negative=NegativeLoss(multi_negative_loss)), True),
        (HeadClassifier(criterion__negative=NegativeLoss(lambda logits, signed: logits)), False),
        (HeadClassifier(module=ForeignModule), False),
        (HeadClassifier(module=ForeignModule()), False),
        (HeadClassifier(callbacks=[("own", Callback())]), False),
        (HeadClassifier(device="cuda"), False),
        (FOREIGN, False),
        (NegativePseudoLabelClassifier(positive_selector=Interrupt()), False),
        (LogisticRegression(), True),
        ([("scale", LogisticRegression()), ("net", FOREIGN.estimator)], False),
    ],
)
def test_what_draws_locally(part, expected):
    assert draws_locally(part) is expected


def test_blocks_within_blocks():
    with seeded(1):
        outer, first = generator(), torch.rand(2, generator=generator())
        with seeded(2, local=False):
            assert generator() is None
            with seeded(1):
                assert torch.equal(torch.rand(2, generator=generator()), first)
            assert generator() is None
        assert generator() is outer
    assert generator() is None


def test_random_convolutions_beside_a_thread_that_draws(torch_state):
    """Their values are those of torch's own generator after the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)

        expected = mobilenet_v2().state_dict()
    stop, drawn = threading.Event(), []

    def draw():
        while not stop.is_set():
            drawn.append(torch.rand(()))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda _: load_mobilenet_v2(None, seed=3), range(3)))
    finally:
        stop.set()
        thread.join()
    for network in found:
        state = network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    undisturbed = torch.stack([torch.rand((), generator=g) for g in [at(torch_state)] * len(drawn)])
    assert torch.equal(torch.stack(drawn), undisturbed)


def test_prediction_draws_nothing(torch_state):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=None, freeze=False, max_epochs=1).fit(images, [0, 1, 0, 1])
    before = torch.get_rng_state()
    net.predict_proba(images)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_thread_is_of_the_calling_thread_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread(), ThreadPoolExecutor(1) as other:
            assert torch.get_num_threads() == 1
            assert other.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3

        def trained_on(barrier):
            barrier.wait()
            with one_thread():
                barrier.wait()
                within = torch.get_num_threads()
                barrier.wait()
            return within, torch.get_num_threads()

        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(trained_on, [barrier] * 4)) == [(1, 3)] * 4
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as late:
            assert late.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
