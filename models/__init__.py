"""Adversarial autoencoders. To add one: a short class in its own file and a line here."""

# Read by main.py before TensorFlow is imported.
MODELS = {
    "supervised": "models.supervised_aae:SupervisedAAE",
    "semi_supervised": "models.semi_supervised_aae:SemiSupervisedAAE",
    "unsupervised": "models.unsupervised_aae:UnsupervisedAAE",
    "conditional": "models.conditional_aae:ConditionalAAE",
}


# Models whose decoder sees the label beside the code.
LABELLED_DECODERS = {"semi_supervised", "conditional"}


def __getattr__(name):
    # `from models import load_model` imports TensorFlow only when it is asked for.
    if name == "load_model":
        from models.saved_model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
