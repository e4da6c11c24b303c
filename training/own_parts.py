"""Priors and models of the user's own, `--prior package.module:Class`, looked at before a run begins."""

import importlib.util
import os
import sys

from utils import registry
from utils.errors import UserError, first_line


def own_parts(config):
    """The prior and the model where they are classes of the user's own: a dict by the flag's name."""
    return {name: getattr(config, name) for name in ("prior", "model") if ":" in getattr(config, name)}


def find_own_parts(config, argv):
    """Looks for the modules of a user's own classes, without importing them.

    Only the command line may name code: a flag file or a run directory may come from anywhere.

    Args:
        config: a `Config`.
        argv: the words of the command line.

    Raises:
        UserError: where a class does not stand on the command line, or its module is not there.
    """
    if own_parts(config) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    typed = {word.partition("=")[2] or word for word in argv}
    for name, value in own_parts(config).items():
        if value not in typed:
            raise UserError(f"--{name} {value} is code: to run it, name it on the command line itself.")
        module = value.split(":")[0]
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise UserError(f"--{name} {value}: there is no module {module} here or in Python's path.")


def check_own_parts(config):
    """Imports a user's own classes, if there are any, and tries the prior.

    Raises:
        UserError: in one line, if one cannot be imported, or is none of its kind, or breaks what it promises.
    """
    from models.adversarial_autoencoder import AdversarialAutoencoder
    from models.semi_supervised import SemiSupervisedAAE
    from priors.prior import Prior, check_prior

    bases = {"prior": Prior, "model": AdversarialAutoencoder}
    for name, value in own_parts(config).items():
        try:
            own = registry.load({}, value)
        except Exception as error:  # whatever the user's module raises
            raise UserError(f"--{name} {value} cannot be imported: {first_line(error)}") from None
        base = bases[name]
        if not (isinstance(own, type) and issubclass(own, base)):
            raise UserError(f"--{name} {value} is no subclass of {base.__module__}.{base.__name__}.")
        if name == "prior":
            try:
                check_prior(own(config.n_z, 10))
            except Exception as error:
                raise UserError(f"--prior {value} does not work: {first_line(error)}") from None
        elif issubclass(own, SemiSupervisedAAE):
            raise UserError(f"--model {value}: only the program's own models can be semi-supervised.")
        elif not _is_registered(own):
            decorator = '@keras.saving.register_keras_serializable(package="aae")'
            raise UserError(f"--model {value} could not be saved: put {decorator} above the class.")


def _is_registered(own):
    """Whether Keras finds a class under its name in this project's package."""
    import keras

    return keras.saving.get_registered_object(f"aae>{own.__name__}") is own
