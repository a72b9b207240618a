"""LLP-GAN: the net also tells patches from generated ones, beside the proportion loss."""

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
    """Loss of telling instances from generated ones, a scalar.

    Parameters
    ----------
    real, fake : torch.Tensor of shape (n_instances, n_classes)
        Logits of the classes. A further class, "generated", has logit 0.

    Returns
    -------
    loss : torch.Tensor
        Mean of ``-log P(a class)`` of the instances plus mean of ``-log P(generated)`` of the others.

    Examples
    --------
    >>> discriminator_loss(torch.zeros(1, 1), torch.zeros(1, 1))  # 2 log 2
    tensor(1.3863)
    """
    softplus = nn.functional.softplus
    return softplus(-real.logsumexp(dim=1)).mean() + softplus(fake.logsumexp(dim=1)).mean()


def hidden_features(module: nn.Module, X: torch.Tensor) -> torch.Tensor:
    """What the last linear layer of a net receives; the instances themselves where there is no layer before.

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
    """Features from uniform noise, by one hidden layer.

    Parameters
    ----------
    n_noise, n_hidden : int
    center, scale : torch.Tensor of shape (n_features,)
        Where generated features begin, and the unit of their distance from there.
    """

    def __init__(self, n_noise: int, n_hidden: int, center: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.n_noise, self.center, self.scale = n_noise, center, scale
        with WeightsFrom(generator()):
            self.layers = nn.Sequential(
                nn.Linear(n_noise, n_hidden), nn.ReLU(), nn.Linear(n_hidden, len(center))
            ).to(center.device)

    def forward(self, n_instances: int) -> torch.Tensor:
        """Features of shape (n_instances, n_features) from new noise."""
        shape = (n_instances, self.n_noise)
        noise = torch.rand(shape, device=self.center.device, generator=generator())
        return self.center + self.scale * self.layers(2 * noise - 1)


class GenerativeLoss(BagLoss):
    """Proportion loss and :func:`discriminator_loss`; its generator learns beside the net.

    In each step the generator goes first: one step of Adam on the squared distance of the mean hidden
    features of instances and generated ones.

    Parameters
    ----------
    adversarial_weight : float
        Weight of the discriminator's loss beside the proportion loss.
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
        """One step of the generator towards the mean hidden features of the batch; the net stays."""
        with torch.no_grad():
            target = hidden_features(module, batch.X).mean(dim=0)
        found = hidden_features(module, generated(len(batch.X))).mean(dim=0)
        parameters = list(generated.parameters())
        slopes = torch.autograd.grad(nn.functional.mse_loss(found, target), parameters)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        self.optimizer.step()


class LLPGANClassifier(TwoStreamClassifier):
    """Proportion loss of a net that also tells patches from generated features (LLP-GAN).

    Parameters
    ----------
    adversarial_weight : float, default=1.0
        Weight of telling patches from generated features beside the proportion loss.
    n_noise : int, default=100
        Uniform random numbers that the generator makes features from.
    n_hidden : int, default=128
        Size of the generator's hidden layer.
    generator_learning_rate : float, default=3e-4
        Learning rate of the generator's Adam, whose first momentum is 0.5.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and all else as in
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        The authors' settings: equal weights, and a step on each single bag.

    Notes
    -----
    The paper generates images and matches the last hidden layer of a convolutional net. Here features are
    generated by one hidden layer; the hidden layer that is matched is that of ``estimator``, or, with the
    linear head, the features themselves. Instances of a bag need not be drawn whole.

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
