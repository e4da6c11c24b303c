"""Adversarial autoencoders and what they are made of. To add one: a class or a function, and a line here."""

from utils.processor import choose_kernels

# Whoever uses a model comes through here, and before TensorFlow if it is to have an effect.
choose_kernels()

# Read by main.py before TensorFlow is imported.
MODELS = {
    "supervised": "models.supervised:SupervisedAAE",
    "semi_supervised": "models.semi_supervised:SemiSupervisedAAE",
    "unsupervised": "models.unsupervised:UnsupervisedAAE",
    "conditional": "models.conditional:ConditionalAAE",
    "clustering": "models.clustering:ClusteringAAE",
    "dimensionality_reduction": "models.dimensionality_reduction:DimensionalityReductionAAE",
}

# The encoder's and the decoder's class; discriminators are dense.
NETWORKS = {"dense": "models.networks:DENSE", "conv": "models.networks:CONV"}

# The autoencoder's cost.
RECONSTRUCTIONS = {
    "mean": "models.losses:mean_squared_error",
    "half_sum": "models.losses:half_summed_squared_error",
}

# Models whose decoder sees the label beside the code.
LABELLED_DECODERS = {"semi_supervised", "conditional", "clustering"}

# Models whose discriminator sees the images' labels beside their codes.
LABELLED_DISCRIMINATORS = ("supervised", "conditional")

# Models whose encoder gives a label beside the style, and those of them that can do without labels.
LABEL_HEADS = ("semi_supervised", "clustering", "dimensionality_reduction")
CLUSTERING = ("clustering", "dimensionality_reduction")


def __getattr__(name):
    # `from models import load_model` imports TensorFlow only when it is asked for.
    if name == "load_model":
        from models.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
