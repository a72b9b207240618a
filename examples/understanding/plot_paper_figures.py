"""
Figures of the paper
====================

The figures of Tokunaga et al. (ECCV 2020), drawn from a fit on synthetic slides: how many patches
of a slide are selected (Figure 4), which patches receive positive and negative pseudo labels in
each round (Figures 2 and 7), and how the errors change.
"""

# %%
# Figure 4: a slide whose predicted shares are close to the recorded ones. The right bar of a class
# holds the patches predicted as the class, the most confident at the bottom. The filled part
# receives a positive label. The closer the shares, the smaller the sum absolute error and the
# larger the filled part. Hardly any patch gets a negative label.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from proportion_ssl import AdaptiveSelector, Bags, NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.displays import LearningDisplay, PseudoLabelDisplay, SelectivityDisplay
from proportion_ssl.proportions import class_proportions, sum_absolute_error

CLASSES = ["lepidic", "acinar", "papillary", "micropapillary", "solid"]
recorded = [0.05, 0.70, 0.15, 0.00, 0.10]
display = SelectivityDisplay.from_predictions(
    recorded, [0.07, 0.64, 0.14, 0.00, 0.14], classes=CLASSES
)
print("positive selectivity:", display.positive_selectivity.round(4))

# %%
# The same slide with a poor prediction. The shares are far apart, so that no patch gets a positive
# label. The least confident patches of classes that are predicted too often are labeled "not this
# class": all patches of a class that is absent, and most of a class that is far too frequent.
SelectivityDisplay.from_predictions(recorded, [0.05, 0.10, 0.15, 0.25, 0.45], classes=CLASSES)

# %%
# Figures 2 and 7 need the predictions of each round, which a fitted classifier does not keep. This
# selector records them.


class ObservedSelector(AdaptiveSelector):
    """The adaptive selector, which also records the predicted classes of each round."""

    def select(self, probabilities, bag_index, bag_proportions):
        predicted_codes.append(probabilities.argmax(axis=1))
        return super().select(probabilities, bag_index, bag_proportions)


predicted_codes = []
data = make_bags(
    n_bags=30, bag_size=120, n_classes=5, class_separation=0.7, slide_shift=1.2, random_state=2
)
y = np.array(sorted(CLASSES))[data.y]
y_bags = np.array(sorted(CLASSES))[data.y_bags]
clf = NegativePseudoLabelClassifier(
    positive_selector=ObservedSelector(), max_epochs=40, random_state=0
)
proportions = pd.DataFrame(data.bags.proportions, data.bags.names, sorted(CLASSES))
clf.fit(data.X_labeled, y, Bags(data.bags.X, data.bags.names[data.bags.index], proportions))

# %%
# The slide whose predicted shares improve most from the first round to the last. Its patches are
# sorted by their true classes, which the classifier does not know. The outline of a box is the
# predicted class. A filled box has a positive label, a hatched box a negative label (in the color
# of the excluded class); stripes are negative labels of several rounds. In the first round the net
# predicts rare classes for most of the slide, so that there are no positive labels and many boxes
# are hatched. As these patches change to other classes, the shares come closer and boxes fill up.
shares = [
    class_proportions(codes, data.bags.index, n_bags=30, n_classes=5) for codes in predicted_codes
]
error = np.array([sum_absolute_error(data.bags.proportions, share) for share in shares])
bag = int((error[0] - error[-1]).argmax())
rows = np.flatnonzero(data.bags.index == bag)
rows = rows[np.argsort(y_bags[rows], kind="stable")]

rounds = [1, 3, 40]
print("sum absolute error of this slide:", error[np.array(rounds) - 1, bag].round(2))
truth = (y_bags[rows, np.newaxis] == clf.classes_).astype(int)
PseudoLabelDisplay.from_predictions(
    [*(clf.label_log_.replay(i)[rows] for i in rounds), truth],
    predictions=[*(clf.classes_[predicted_codes[i - 1][rows]] for i in rounds), y_bags[rows]],
    titles=[*(f"round {i}" for i in rounds), "truth"],
    classes=clf.classes_,
)

# %%
# All bags together: the losses, the sum absolute error, and the number of labels of each class.
# Negative labels are frequent at first; positive labels replace them. The diamonds are the refit,
# in which new weights are trained on the labels of the last round.
LearningDisplay.from_estimator(clf)
plt.show()
