"""
A grid search on Dask workers
=============================

The fits of a grid search are independent, so they can run on the machines of a cluster.
scikit-learn passes its work to joblib, and joblib passes it to Dask: the only change is one
``with`` statement.

Here the cluster is two processes on this machine; for a real cluster, give ``Client`` the address
of its scheduler. Dask comes with ``pip install "proportion_ssl[dask]"``.
"""

# %%
# Every worker gets all bags, because cross-validation treats a :class:`~proportion_ssl.Bags` as one
# object and does not split it. A script that starts processes needs ``if __name__ == "__main__"``,
# because each process imports the script.
import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
from dask.distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV, GroupKFold

from proportion_ssl import NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.metrics import mean_iou_scorer


def search_on(data, backend):
    """Best settings, and seconds that the search took on a joblib backend."""
    search = GridSearchCV(
        NegativePseudoLabelClassifier(max_epochs=10, random_state=0),
        {"learning_rate": [0.01, 0.03], "negative_memory": [1, 3]},
        scoring=mean_iou_scorer,
        cv=GroupKFold(3),
        n_jobs=2,
    )
    begin = time.perf_counter()
    with joblib.parallel_config(backend):
        search.fit(data.X_labeled, data.y, groups=data.groups, X_bags=data.bags)
    return search, time.perf_counter() - begin


def main():
    sklearn.set_config(enable_metadata_routing=True)
    data = make_bags(n_labeled_slides=8, bag_size=15, class_separation=0.6, random_state=0)
    here, seconds_here = search_on(data, "sequential")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        print("workers:", len(client.scheduler_info()["workers"]))
        there, seconds_there = search_on(data, "dask")
    sklearn.set_config(enable_metadata_routing=False)

    # the same scores in both
    np.testing.assert_allclose(
        here.cv_results_["mean_test_score"], there.cv_results_["mean_test_score"], atol=1e-6
    )
    print(f"one process {seconds_here:.1f} s, two Dask workers {seconds_there:.1f} s")
    print("best:", there.best_params_)
    table = pd.DataFrame(there.cv_results_).pivot(
        index="param_negative_memory", columns="param_learning_rate", values="mean_test_score"
    )
    figure, ax = plt.subplots(figsize=(4.5, 2.6), layout="constrained")
    image = ax.imshow(table, cmap="cividis", aspect="auto")
    for (row, column), score in np.ndenumerate(table.to_numpy()):
        ink = "white" if image.norm(score) < 0.5 else "black"
        ax.text(column, row, f"{score:.3f}", ha="center", va="center", color=ink)
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(table.shape[0]), table.index)
    ax.set(
        xlabel="learning rate", ylabel="negative memory (rounds)", title="mean IoU, left-out slides"
    )
    figure.colorbar(image)
    plt.show()


# %%
# The first search on a new cluster includes the imports of the workers. With fits of about a
# second, as here, this takes longer than the parallel run saves.
if __name__ == "__main__":
    main()
