"""The settings of the models: each once, with its default, its meaning and its limits."""

import dataclasses

from models import CLUSTERING, LABEL_HEADS, LABELLED_DISCRIMINATORS, NETWORKS, RECONSTRUCTIONS
from priors import PLANAR_PRIORS, PRIORS
from utils.errors import UserError
from utils.settings import check, setting

MAX_UNITS = 2**16  # 17 GB of weights between two layers of so many
# A prior or a model that is in no registry.
OWN_CLASS = {
    "pattern": r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    "example": "package.module:Class of your own",
}
MAX_CLUSTERS = 2**10
WITH_LABEL_HEAD = {"model": LABEL_HEADS}
MAY_READ_COPIES = {"model": ("supervised", *LABEL_HEADS)}
READS_COPIES = {**MAY_READ_COPIES, "consistency": (True,)}


class AboveZero(tuple):
    """The positive numbers, where `only` lists values."""

    def __contains__(self, value):
        return not isinstance(value, str) and value > 0


ABOVE_ZERO = AboveZero(["above 0"])


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """What a model is made of and how its train step goes, whatever the data; see each field's `help`.

    To add one: a line here, and its use.
    """

    prior: str = setting(
        "gaussian", "Distribution that the codes are pushed onto.", "first", choices=PRIORS, **OWN_CLASS
    )
    n_z: int = setting(
        20, "Size of the code; even for priors on the plane.", "first", at_least=1, at_most=MAX_UNITS
    )
    prior_std: float = setting(
        1.0, "Standard deviation of the gaussian prior.", "model", above=0, only={"prior": ("gaussian",)}
    )
    n_clusters: int = setting(
        0,
        "Number of clusters to find, without labels; by default 16 for clustering, and for dimensionality "
        "reduction 0: it learns the labels of num_samples images.",
        "model",
        at_least=0,
        at_most=MAX_CLUSTERS,
        only={"model": CLUSTERING},
    )
    unlabelled: bool = setting(
        False,
        "Show D the labels of num_samples images alone, which then make half of every batch, and of all "
        "others that they have none; by default with num_samples.",
        "model",
        only={"model": ("supervised",)},
    )
    head_distance: float = setting(
        6.0,
        "Least distance of any two cluster heads in the code: eta in the paper.",
        "model",
        at_least=0,
        only={"model": ("dimensionality_reduction",)},
    )
    network: str = setting("dense", "Kind of encoder and decoder.", "model", choices=NETWORKS)
    n_hidden: int = setting(
        1000,
        "Units per hidden layer of encoder and decoder, if dense.",
        "model",
        at_least=1,
        at_most=MAX_UNITS,
        aliases=("super_n_hidden", "semi_n_hidden"),
    )
    conv_widths: str = setting(
        "16,32,64",
        "Channels per hidden layer; each after the first halves the side.",
        "model",
        pattern=r"[1-9]\d{0,3}(,[1-9]\d{0,3}){0,7}",
        example="up to 8 numbers below 10000, such as 16,32,64",
        only={"network": ("conv",)},
    )
    d_hidden: int = setting(
        0, "Units per hidden layer of D; 0 for as many as n_hidden.", "model", at_least=0, at_most=MAX_UNITS
    )
    d_label: str = setting(
        "input",
        "Where D takes a class's label: as input beside the code, or to pick one of its outputs; by default "
        "output where the supervised model's labels have parts of the prior. Attributes are always input.",
        "model",
        choices=["input", "output"],
        only={"model": LABELLED_DISCRIMINATORS},
    )
    activation: str = setting(
        "relu", "Of all hidden layers; leaky_relu has slope 0.2.", "model", choices=["relu", "leaky_relu"]
    )
    output: str = setting(
        "sigmoid",
        "Of the decoder; with tanh, pixels run from -1 to 1 inside the networks.",
        "model",
        choices=["sigmoid", "tanh"],
    )
    batch_norm: bool = setting(False, "Batch norm in encoder and decoder.", "model")
    decoder_batch_norm: bool = setting(
        True, "Batch norm in the decoder too.", "model", only={"batch_norm": (True,)}
    )
    joint_discriminator: bool = setting(
        True,
        "One D of style and label together, which makes them independent, instead of one of each.",
        "model",
        only=WITH_LABEL_HEAD,
        before=False,
    )
    cycle: bool = setting(
        True,
        "Train the decoder to make images in which the encoder reads the label that it was given.",
        "model",
        only=WITH_LABEL_HEAD,
        before=False,
    )
    consistency: bool = setting(
        False,
        "Train the encoder to read the same label, or cluster, in copies of an image that are moved about; "
        "or if supervised, to give them the same code: the default on the swiss roll.",
        "model",
        only=MAY_READ_COPIES,
        before=False,
    )
    distortion: float = setting(
        0.0,
        "How far the consistency's copies are turned, scaled and sheared; 0.3 is up to 17 degrees, or 30 %; "
        "by default 0.2 if supervised.",
        "training",
        at_least=0,
        at_most=1,
        only=READS_COPIES,
    )
    vat_radius: float = setting(
        0.0,
        "How far the copies are pushed to where they are read otherwise (virtual adversarial training): a "
        "length over all pixels in [0, 1]; by default 0.5 if supervised.",
        "training",
        at_least=0,
        only=READS_COPIES,
    )
    vat_ramp: int = setting(
        0,
        "Train steps over which that length grows from 0.",
        "training",
        at_least=0,
        only={**READS_COPIES, "vat_radius": ABOVE_ZERO},
    )
    consistency_ramp: int = setting(
        2500,
        "Train steps over which the supervised model's consistency comes to its full weight.",
        "training",
        at_least=1,
        only={"model": ("supervised",), "consistency": (True,)},
    )
    keep_prob: float = setting(
        0.9,
        "Share of hidden units that dropout keeps; 1 if conditional with a gaussian prior.",
        "training",
        above=0,
        at_most=1,
    )
    noised: bool = setting(
        True,
        "Add normal noise to the input in training; not if conditional with a gaussian prior.",
        "training",
    )
    noise_std: float = setting(
        0.3,
        "Standard deviation of that noise, on pixels in [0, 1]; by default 0.1 if supervised on "
        "the swiss roll.",
        "training",
        at_least=0,
        only={"noised": (True,)},
    )
    input_dropout: float = setting(
        0.0, "Share of the input's pixels that training sets to 0.", "training", at_least=0, below=1
    )
    shift: int = setting(
        0, "Move each training image by up to so many pixels at random.", "training", at_least=0, at_most=8
    )
    d_noise: float = setting(
        0.15, "Standard deviation of the noise on every code that D sees.", "training", at_least=0
    )
    d_penalty: float = setting(
        0.0,
        "Weight of half the squared slope of D at real codes in D's loss (R1), for a smoother D; "
        "0.1 if conditional with a gaussian prior.",
        "training",
        at_least=0,
        only={"model": ("unsupervised", *LABELLED_DISCRIMINATORS)},
    )
    d_distortion: float = setting(
        0.0,
        "How far half of the images whose codes D and G see are turned, scaled and sheared; 0.3 is up to 17 "
        "degrees, or 30 %; until the noise ends.",
        "training",
        at_least=0,
        at_most=1,
    )
    balance: bool = setting(
        False, "Let D and G each wait while the other is far behind; needs optimizer adam.", "training"
    )
    reconstruction: str = setting(
        "mean",
        "The autoencoder's cost: the mean of the squared error over the pixels, or half its sum over them.",
        "training",
        choices=RECONSTRUCTIONS,
    )
    init_std: float = setting(
        0.0, "Standard deviation of the initial weights; 0 for Glorot's.", "training", at_least=0
    )
    ema_decay: float = setting(
        0.99,
        "Share that averages of encoder and decoder, which serve outside training, keep a step; 0 for none.",
        "training",
        at_least=0,
        below=1,
        before=0.0,
    )
    precision: str = setting(
        "float32",
        "Of the products in the hidden layers and of those that give images; all else is float32. auto takes "
        "bfloat16 where the processor multiplies it in hardware.",
        "advanced",
        choices=["float32", "bfloat16", "auto"],
    )
    seed: int = setting(0, "Every random draw depends on it.", "training", at_least=0, at_most=2**31 - 1)

    def validate(self):
        """Refuses what cannot work.

        Raises:
            UserError: one line about the first problem found.
        """
        check(self)
        if self.prior in PLANAR_PRIORS and self.n_z % 2:
            raise UserError(f"--prior {self.prior} needs an even --n_z, got {self.n_z}.")

    @property
    def widths(self):
        """Channels of the convolutional networks' hidden layers, a tuple of ints."""
        return tuple(map(int, self.conv_widths.split(",")))

    @property
    def input_noise(self):
        """Standard deviation of the noise on the input in training; 0 for none."""
        return self.noise_std if self.noised else 0.0

    @property
    def effective(self):
        """The same settings, with no noise said in one of the two ways that there are."""
        return dataclasses.replace(self, noised=True, noise_std=self.input_noise)


def updated_config(config):
    """A model's Keras configuration as this version writes it, from one that an earlier version wrote."""
    # Those had Keras's own settings too, and widths as numbers.
    config = {name: value for name, value in config.items() if name not in ("trainable", "dtype")}
    if not isinstance(config["conv_widths"], str):
        config["conv_widths"] = ",".join(map(str, config["conv_widths"]))
    return config
