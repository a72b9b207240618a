"""Distribution of a number of successes, one independent trial after the other."""

import numpy as np


def convolved(p):
    """Probabilities of 0 to n successes in n trials with these probabilities."""
    found = np.ones(1)
    for one in p:
        found = np.convolve(found, [1 - one, one])
    return found
