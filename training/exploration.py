"""`--explore`: what must be there before the page opens, looked at before TensorFlow is imported."""

import contextlib
import importlib.util
import os
import socket

from data.loading import load_data, without_downloads
from models.model_file import data_differences
from training.trained_run import trained_run
from utils.errors import UserError


def prepare_exploration(config):
    """The run to explore, and its data.

    Args:
        config: a `Config` whose `explore` and `run_dir` are set.

    Returns:
        the `Config` of the run, its description of its data, and the `ImageData`, or None where it is not on
        this machine: the page then does without test images.

    Raises:
        UserError: without Gradio, a run, or a trained model; if the port is in use, or --data_dir is wrong.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("--explore needs Gradio: pip install -r requirements-explore.txt.")
    saved, noted = trained_run(config)
    _refuse_used_port(config)
    known = saved.data_dir if os.path.exists(saved.data_dir) else os.environ.get("AAE_DATA_DIR", "")
    try:
        with without_downloads():
            data = load_data(saved.data, config.data_dir or known, saved.image_size)
        if differences := data_differences(noted, data.describe()):
            raise UserError(f"The run is on other data: {', '.join(differences)}.")
    except UserError as error:
        if config.data_dir:
            raise
        print(f"{error} The page does without test images.", flush=True)
        data = None
    return saved, noted, data


def _refuse_used_port(config):
    """Raises a UserError if nothing can listen on the address."""
    host, port = config.explore_host, config.explore_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            listener.bind(address)
    except OSError as error:
        raise UserError(
            f"Nothing can listen on {host} at port {port}: {error.strerror}. Choose another --explore_port."
        ) from None
