"""The adversarial autoencoder that finds clusters."""

import keras

from models.semi_supervised import SemiSupervisedAAE


@keras.saving.register_keras_serializable(package="aae")
class ClusteringAAE(SemiSupervisedAAE):
    """The code is a style and a cluster; nobody says what the clusters are (paper, section 6).

    It is the semi-supervised model without labels: the uniform prior of the label makes every image choose
    one of the clusters, and all of them be chosen alike often.

    Args:
        n_classes: number of clusters, unless `n_clusters` says it.
        others: as of `AdversarialAutoencoder`.
    """

    finds_clusters = True

    def __init__(self, image_shape, n_classes, n_clusters=0, **others):
        super().__init__(image_shape, n_clusters or n_classes, n_clusters=n_clusters, **others)
