"""
A custom loss
=============

A negative label says what a patch is *not*. The paper's loss is ``-log(1 - f)``, which grows
without limit as the net becomes sure of the wrong class. But the label itself may be wrong; perhaps
a bounded loss is wiser.
"""

# %%
# A loss of negative labels is a function of logits and signed labels that gives one number per
# patch; :class:`~proportion_ssl.losses.NegativeLoss` averages it over the patches with a negative
# label. Here: the mean absolute error of the negative label, ``f_c``, which is never more than 1.
import matplotlib.pyplot as plt
import numpy as np
import torch

from proportion_ssl import NegativePseudoLabelClassifier, mean_iou_score
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses import NegativeLoss, multi_negative_loss, negative_loss


def bounded_negative_loss(logits, signed):
    """Probability of the classes that an instance is said not to be of."""
    return (-signed.clamp(max=0) * logits.softmax(dim=-1)).sum(dim=-1)


# %%
# Loss and gradient of both, for a patch that is labeled "not class 0", against the probability of
# class 0. The gradient of the paper's loss is largest where the net is most confident; that of the
# bounded loss vanishes there.
probability = torch.linspace(0.01, 0.99, 99)
signed = torch.tensor([[-1, 0]]).repeat(99, 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for loss, color in ((negative_loss, "#0072b2"), (bounded_negative_loss, "#e69f00")):
    logits = torch.stack([probability.logit(), torch.zeros(99)], dim=1).requires_grad_()
    values = loss(logits, signed)
    gradient = torch.autograd.grad(values.sum(), logits)[0][:, 0]
    left.plot(probability, values.detach(), color=color, label=loss.__name__)
    right.plot(probability, gradient, color=color)
left.set(xlabel="probability of class 0", ylabel="loss", ylim=(0, 4))
right.set(xlabel="probability of class 0", ylabel="gradient with respect to its logit")
left.legend()

# %%
# Both losses in training, with proportions that have an error of about 15 points, so that some
# negative labels are wrong. A few synthetic slides cannot show which is better; the point is that
# trying a loss takes ten lines.
scores = {"multi_negative_loss": [], "bounded_negative_loss": []}
for seed in range(4):
    data = make_bags(
        n_bags=30, bag_size=30, class_separation=0.7, proportion_noise=0.15, random_state=seed
    )
    for loss in (multi_negative_loss, bounded_negative_loss):
        model = NegativePseudoLabelClassifier(
            negative_loss=NegativeLoss(loss), max_epochs=25, random_state=0
        )
        model.fit(data.X_labeled, data.y, data.bags)
        scores[loss.__name__].append(mean_iou_score(data.y_test, model.predict(data.X_test)))
for name, values in scores.items():
    print(f"{name:22} mean IoU {np.mean(values):.3f}, by cohort {np.round(values, 2).tolist()}")
plt.show()
