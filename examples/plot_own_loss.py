"""
A loss of your own
==================

A negative label says what a patch is *not*. The paper charges ``-log(1 - f)`` for it, which grows
without limit as the net becomes sure of the wrong class. But the label itself may be wrong; perhaps
a bounded cost is wiser.
"""

# %%
# A loss is a torch module with two methods: ``instance_losses`` gives one number per patch,
# ``selected`` says which patches the mean runs over. Deriving from
# :class:`~proportion_ssl.losses.NegativeLoss` leaves one method to write. Here: the mean absolute error of
# the negative label, ``f_c``, which is never more than 1.
import matplotlib.pyplot as plt
import numpy as np
import torch

from proportion_ssl import NegativePseudoLabelClassifier, mean_iou_score
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses import MultiNegativeLoss, NegativeLoss


class BoundedNegativeLoss(NegativeLoss):
    """Probability of the classes that an instance is said not to be of."""

    def instance_losses(self, logits, signed):
        return (-signed.clamp(max=0) * logits.softmax(dim=-1)).sum(dim=-1)


# %%
# Cost and pull of both, for a patch that is labelled "not class 0", against the probability of
# class 0. The paper's loss pulls hardest where the net is most sure; the bounded one lets go there.
probability = torch.linspace(0.01, 0.99, 99)
signed = torch.tensor([[-1, 0]]).repeat(99, 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for loss, color in ((NegativeLoss(), "#0072b2"), (BoundedNegativeLoss(), "#e69f00")):
    logits = torch.stack([probability.logit(), torch.zeros(99)], dim=1).requires_grad_()
    cost = loss.instance_losses(logits, signed)
    pull = torch.autograd.grad(cost.sum(), logits)[0][:, 0]
    left.plot(probability, cost.detach(), color=color, label=type(loss).__name__)
    right.plot(probability, pull, color=color)
left.set(xlabel="probability of the class it is not", ylabel="loss", ylim=(0, 4))
right.set(xlabel="probability of the class it is not", ylabel="gradient at its logit")
left.legend()

# %%
# Both in the loop, with proportions that are off by some 15 points, so that some negative labels
# are wrong. A handful of synthetic slides cannot settle which is better; the point is that trying
# takes ten lines.
scores = {"MultiNegativeLoss": [], "BoundedNegativeLoss": []}
for seed in range(4):
    data = make_bags(
        n_bags=30, bag_size=30, class_separation=0.7, proportion_noise=0.15, random_state=seed
    )
    for loss in (MultiNegativeLoss(), BoundedNegativeLoss()):
        model = NegativePseudoLabelClassifier(negative_loss=loss, max_epochs=25, random_state=0)
        model.fit(data.X_labeled, data.y, data.bags)
        scores[type(loss).__name__].append(mean_iou_score(data.y_test, model.predict(data.X_test)))
for name, values in scores.items():
    print(
        f"{name:20} mean IoU {np.mean(values):.3f}, of single cohorts {np.round(values, 2).tolist()}"
    )
plt.show()
