"""LLP-GAN: proportion loss plus discrimination between real and generated patches."""

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.embedding._random_weights import WeightsFrom
from proportion_ssl.nets.random_numbers import generator


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Scalar loss for discriminating real from generated instances.

    Parameters
    ----------
    real, fake : torch.Tensor of shape (n_instances, n_classes)
        Logits of the classes. The additional class "generated" has logit 0.

    Returns
    -------
    loss : torch.Tensor
        Mean of ``-log P(any class)`` over real plus mean of ``-log P(generated)`` over generated instances.

    Examples
    --------
    >>> discriminator_loss(torch.zeros(1, 1), torch.zeros(1, 1))  # 2 log 2
    tensor(1.3863)
    """
    softplus = nn.functional.softplus
    return softplus(-real.logsumexp(dim=1)).mean() + softplus(fake.logsumexp(dim=1)).mean()


def hidden_features(module: nn.Module, X: torch.Tensor) -> torch.Tensor:
    """Input of the last linear layer of a net; the instances themselves if it is the only layer.

    Parameters
    ----------
    module : torch.nn.Module
    X : torch.Tensor of shape (n_instances, n_features)

    Returns
    -------
    features : torch.Tensor of shape (n_instances, n_hidden)

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> hidden_features(net, torch.zeros(4, 2)).shape
    torch.Size([4, 5])
    """
    seen = [X]
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for layer in linear
    ]
    try:
        module(X)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[-1]


class FeatureGenerator(nn.Module):
    """Generator of features from uniform noise, with one hidden layer.

    Parameters
    ----------
    n_noise, n_hidden : int
    center, scale : torch.Tensor of shape (n_features,)
        Initial mean of the generated features, and unit of their deviation from it.
    """

    def __init__(self, n_noise: int, n_hidden: int, center: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.n_noise, self.center, self.scale = n_noise, center, scale
        with WeightsFrom(generator()):
            self.layers = nn.Sequential(
                nn.Linear(n_noise, n_hidden), nn.ReLU(), nn.Linear(n_hidden, len(center))
            ).to(center.device)

    def forward(self, n_instances: int) -> torch.Tensor:
        """Generate features of shape (n_instances, n_features) from new noise."""
        shape = (n_instances, self.n_noise)
        noise = torch.rand(shape, device=self.center.device, generator=generator())
        return self.center + self.scale * self.layers(2 * noise - 1)


class GenerativeLoss(BagLoss):
    """Proportion loss plus :func:`discriminator_loss`, with a generator trained alongside the net.

    Each step first updates the generator with one step of Adam on the squared distance between the mean
    hidden features of real and generated instances.

    Parameters
    ----------
    adversarial_weight : float
        Weight of the discriminator loss relative to the proportion loss.
    n_noise, n_hidden : int
    learning_rate : float
        Learning rate of the generator.
    """

    def __init__(
        self, adversarial_weight: float, n_noise: int, n_hidden: int, learning_rate: float
    ):
        super().__init__()
        self.proportions, self.adversarial_weight = MeanProportionLoss(), adversarial_weight
        self.n_noise, self.n_hidden, self.learning_rate = n_noise, n_hidden, learning_rate
        self.generator: FeatureGenerator | None = None

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        if self.generator is None:
            center = batch.everything.mean(dim=0)
            self.generator = FeatureGenerator(self.n_noise, self.n_hidden, center, batch.scale)
            self.optimizer = torch.optim.Adam(
                self.generator.parameters(), lr=self.learning_rate, betas=(0.5, 0.999)
            )
        self.improve_generator(self.generator, module, batch)
        with torch.no_grad():
            generated = self.generator(len(batch.X))
        logits = module(batch.X)
        adversarial = discriminator_loss(logits, module(generated))
        return self.proportions.of_logits(logits, batch) + self.adversarial_weight * adversarial

    def improve_generator(
        self, generated: FeatureGenerator, module: nn.Module, batch: BagBatch
    ) -> None:
        """Update the generator toward the mean hidden features of the batch; the net does not change."""
        with torch.no_grad():
            target = hidden_features(module, batch.X).mean(dim=0)
        found = hidden_features(module, generated(len(batch.X))).mean(dim=0)
        parameters = list(generated.parameters())
        slopes = torch.autograd.grad(nn.functional.mse_loss(found, target), parameters)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        self.optimizer.step()


class LLPGANClassifier(TwoStreamClassifier):
    """Classifier with proportion loss and discrimination of real from generated features (LLP-GAN).

    Parameters
    ----------
    adversarial_weight : float, default=1.0
        Weight of the discriminator loss relative to the proportion loss.
    n_noise : int, default=100
        Number of uniform random inputs of the generator.
    n_hidden : int, default=128
        Size of the hidden layer of the generator.
    generator_learning_rate : float, default=3e-4
        Learning rate of the generator (Adam with beta1 = 0.5).
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: equal weights, and one step per bag.

    Notes
    -----
    The paper generates images and matches the last hidden layer of a convolutional net. Here a generator with
    one hidden layer generates features. The matched hidden layer is that of ``estimator`` or, with a linear
    head, the features themselves. Bags need not be used completely in each step.

    References
    ----------
    .. [1] Liu, Wang, Qi, Tian, Shi. "Learning from Label Proportions with Generative Adversarial Networks".
       NeurIPS 2019.
    """

    _needs_real_numbers = True

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "adversarial_weight": [Interval(Real, 0, None, closed="left")],
        "n_noise": [Interval(Integral, 1, None, closed="left")],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "generator_learning_rate": [Interval(Real, 0, None, closed="neither")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "adversarial_weight": 1.0,
        "n_noise": 100,
        "generator_learning_rate": 3e-4,
        "bags_per_batch": 1,
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        adversarial_weight: float = 1.0,
        n_noise: int = 100,
        n_hidden: int = 128,
        generator_learning_rate: float = 3e-4,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.adversarial_weight = adversarial_weight
        self.n_noise = n_noise
        self.n_hidden = n_hidden
        self.generator_learning_rate = generator_learning_rate

    def _make_bag_loss(self) -> BagLoss:
        return GenerativeLoss(
            self.adversarial_weight, self.n_noise, self.n_hidden, self.generator_learning_rate
        )
