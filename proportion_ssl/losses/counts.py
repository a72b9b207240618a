"""Likelihood of the recorded class counts of bags, given the predictions."""

import torch

from proportion_ssl.losses.signed_labels import log_not

#: Bisection steps for the tilt. Any tilt gives the exact result; a good one preserves precision.
_N_HALVINGS = 40


def count_loss(
    logits: torch.Tensor, bag: torch.Tensor, fewest: torch.Tensor, most: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of the recorded class counts, summed over the classes, per bag.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    bag : torch.Tensor of int64, shape (n_instances,)
        Bag of each instance, 0 to n_bags - 1; every bag has at least one.
    fewest, most : torch.Tensor of int64, shape (n_bags, n_classes)
        Smallest and largest number of instances of each class that the record allows; equal for exact
        counts. ``0 <= fewest <= most <= size of the bag``.

    Returns
    -------
    loss : torch.Tensor of float64, shape (n_bags,)
        At least 0, in nats; finite, with finite gradients, for any finite logits.

    Notes
    -----
    Each instance is of class c with probability ``f_c`` independently of the others. The count of c in a bag
    then follows a Poisson binomial distribution [1]_, computed by fast Fourier transforms as a product of
    the polynomials ``1 - f_c + f_c z``: the loss of LLP-PVC [2]_. Its gradient with respect to the log odds
    of ``f_c`` is ``f_c`` minus the probability of c given the count. The counts of the classes are treated
    as independent because their joint distribution has too many terms; with two classes the same
    information enters twice. The authors use one logistic output per class for ``f_c``; here it is the
    softmax, so that labeled instances train the same probabilities.

    A count with a probability below the precision of float64 would be lost in the transform. The
    probabilities are therefore tilted first, ``q = f e^t / (1 - f + f e^t)``, so that the expected count
    equals the recorded one; ``Pr_f(k) = Pr_q(k) e^(-t k) prod (1 - f + f e^t)`` holds for every t.

    References
    ----------
    .. [1] Hong. "On computing the distribution function for the Poisson binomial distribution".
       Computational Statistics and Data Analysis 59, 2013.
    .. [2] "Learning from Label Proportions via Proportional Value Classification". ICLR 2026.

    Examples
    --------
    >>> import torch
    >>> counts = torch.tensor([[1, 1]])  # two instances: one of each class, at even odds for each
    >>> count_loss(torch.zeros(2, 2), torch.tensor([0, 0]), counts, counts).exp()
    tensor([4.], dtype=torch.float64)
    """
    logits = logits.double()
    log_p, log_rest = logits.log_softmax(dim=1), log_not(logits)
    sizes = torch.bincount(bag)
    place = _place_in_bag(bag, sizes)
    odds = _by_bag(log_p - log_rest, bag, place, sizes, -torch.inf)
    none, every = (
        values.new_zeros(fewest.shape).index_add(0, bag, values) for values in (log_rest, log_p)
    )
    n = sizes.unsqueeze(1)
    with torch.no_grad():
        aim = torch.clamp(odds.sigmoid().sum(dim=2), fewest, most)
        at_end = (aim <= 0) | (
            aim >= n
        )  # otherwise the counts are fixed, or there is nothing to tilt
        tilt = _tilt(odds, aim.clamp(0.5, None).minimum(n - 0.5), n)
        tilt[at_end | ((fewest < aim) & (aim < most))] = 0.0
    tilted = odds + tilt.unsqueeze(2)
    counts = poisson_binomial(tilted.sigmoid(), (-tilted).sigmoid())
    k = torch.arange(counts.shape[2], device=counts.device)
    allowed = (fewest.unsqueeze(2) <= k) & (k <= most.unsqueeze(2))
    log_count = counts.clamp(min=torch.finfo(counts.dtype).tiny).log()
    log_count = log_count - tilt.unsqueeze(2) * (k - aim.unsqueeze(2))
    within = log_count.masked_fill(~allowed, -torch.inf).logsumexp(dim=2)
    normalizer = none + torch.nn.functional.softplus(tilted).sum(dim=2)
    log_probability = (within + normalizer - tilt * aim).clamp(max=0.0)
    log_probability = torch.where(most == 0, none, log_probability)
    log_probability = torch.where(fewest == n, every, log_probability)
    return -log_probability.sum(dim=1)


def poisson_binomial(p: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Distribution of the number of successes among independent trials.

    Parameters
    ----------
    p, rest : torch.Tensor of float64, shape (..., n_trials)
        Probability of success and of failure of each trial.

    Returns
    -------
    probabilities : torch.Tensor of float64, shape (..., n_trials + 1)
        Probabilities of 0, 1, ... successes; absolute error about 1e-15, so slightly negative values occur.

    Examples
    --------
    >>> import torch
    >>> half = torch.full((2,), 0.5, dtype=torch.float64)
    >>> poisson_binomial(half, half)
    tensor([0.2500, 0.5000, 0.2500], dtype=torch.float64)
    """
    factors = torch.stack([rest, p], dim=-1)  # (..., n_trials, 2): the polynomials 1 - p + p z
    while factors.shape[-2] > 1:
        if factors.shape[-2] % 2:
            one = torch.zeros_like(factors[..., :1, :])
            one[..., 0] = 1.0
            factors = torch.cat([factors, one], dim=-2)
        length = 2 * factors.shape[-1] - 1
        transformed = torch.fft.rfft(factors, n=length)
        product = transformed[..., ::2, :] * transformed[..., 1::2, :]
        factors = torch.fft.irfft(product, n=length)
    return factors[..., 0, : p.shape[-1] + 1]


def _place_in_bag(bag: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Position of each instance within its bag, from 0."""
    order = bag.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    place = torch.empty_like(bag)
    place[order] = torch.arange(len(bag), device=bag.device) - starts[bag[order]]
    return place


def _by_bag(values, bag, place, sizes, fill):
    """Values (n_instances, n_columns) as (n_bags, n_columns, largest bag size), padded with ``fill``."""
    shape = (len(sizes), int(sizes.max()), values.shape[1])
    laid = values.new_full(shape, fill).index_put((bag, place), values)
    return laid.transpose(1, 2)


def _tilt(odds: torch.Tensor, aim: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """Shift of the log odds at which the probabilities sum to ``aim`` in (0, n), by bisection."""
    known = odds.isfinite()
    even = torch.logit(aim / n)  # the solution if all log odds were equal
    low = even - odds.amax(dim=2)
    high = even - odds.masked_fill(~known, torch.inf).amin(dim=2)
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        is_low = (odds + middle.unsqueeze(2)).sigmoid().sum(dim=2) < aim
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2
