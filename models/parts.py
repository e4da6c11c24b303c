"""The networks that an adversarial autoencoder is made of."""

import numpy as np

from models import NETWORKS
from models.networks import DenseNetwork, LabelBranches
from utils import registry


def made_networks(model):
    """The encoder, the decoder and the discriminators by their names, each with kernels of its own seed.

    With `ema_decay` there are also `averaged_encoder` and `averaged_decoder`, which begin as the other two.

    Args:
        model: an `AdversarialAutoencoder` that has its settings and shapes.
    """
    of = model.settings
    names = ["encoder", "decoder", *model.discriminator_shapes]
    seeds = [int(np.random.SeedSequence([of.seed, i]).generate_state(1)[0]) for i in range(len(names))]
    shared = {
        "activation": of.activation,
        "keep_prob": of.keep_prob,
        "init_std": of.init_std,
        "dtype": "mixed_bfloat16" if of.precision == "bfloat16" else "float32",
    }
    options = {name: {**shared, "seed": seed} for name, seed in zip(names, seeds, strict=True)}
    encoder, decoder = registry.load(NETWORKS, of.network)
    widths = of.widths if of.network == "conv" else (of.n_hidden, of.n_hidden)

    def autoencoder(before=""):
        return {
            f"{before}encoder": encoder(
                model.image_shape,
                (model.code_size,),
                widths,
                signed_input=of.output == "tanh",
                batch_norm=of.batch_norm,
                name=f"{before}encoder",
                **options["encoder"],
            ),
            f"{before}decoder": decoder(
                (model.decoder_input_size,),
                model.image_shape,
                widths,
                output=of.output,
                batch_norm=of.batch_norm and of.decoder_batch_norm,
                name=f"{before}decoder",
                **options["decoder"],
            ),
        }

    branches = model.label_branches if of.d_label == "output" else 0
    discriminator = LabelBranches if branches else DenseNetwork
    d_widths = [of.d_hidden or of.n_hidden] * 2
    discriminators = {
        name: discriminator(shape, (branches or 1,), d_widths, name=name, **options[name])
        for name, shape in model.discriminator_shapes.items()
    }
    averaged = autoencoder("averaged_") if of.ema_decay else {}
    return {**autoencoder(), **discriminators, **averaged}
