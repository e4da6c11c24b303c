"""The page: its parts together, and the server that shows it on this machine."""

import contextlib
import os
import tempfile
import threading
import warnings
from pathlib import Path

# Before Gradio is imported, which reads them: it asks its makers for news otherwise, and FastAPI below it
# would send traces wherever the environment says.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")
os.environ.update(OTEL_SDK_DISABLED="true", FASTAPI_OTEL_AUTO_CONFIGURE="false")

import gradio as gr
from starlette.middleware import Middleware

from explorer.between import Between
from explorer.guard import MAX_BODY, Guard
from explorer.run import Run
from explorer.subject import Subject
from explorer.walk import Walk
from explorer.your_image import YourImage
from models.loading import load_model
from utils.errors import UserError, first_line

HERE = Path(__file__).parent
CLOSING_SECONDS = 30
LOCAL = ("127.0.0.1", "localhost", "::1")
# Fonts that every machine has: others would come from elsewhere.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def explore(config, saved, noted, data):
    """Opens the page of a run, and shows it until Ctrl-C.

    Args:
        config: a `Config` whose `run_dir`, `explore_host` and `explore_port` are set.
        saved, noted, data: what `training.exploration.prepare_exploration` returned.

    Raises:
        UserError: if the model cannot be read, or the address not be used.
    """
    subject = Subject(load_model(config.run_dir), str(noted.get("name", saved.data)), data)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(subject, config.run_dir)
        with (
            served(page, config.explore_host, config.explore_port) as url,
            contextlib.suppress(KeyboardInterrupt),
        ):
            if config.explore_host not in LOCAL:
                print("warning: whoever reaches this machine can use the page.", flush=True)
            print(f"{config.run_dir} is shown at {url} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    print("\nThe page is closed.", flush=True)


def build(subject, run_dir):
    """The page of a `Subject` as Gradio's `Blocks`."""
    of = subject.model.settings
    with gr.Blocks(title="Adversarial autoencoder", analytics_enabled=False) as page:
        note = subject.data.note if subject.data else "without test images: the data is not on this machine"
        kind, note = subject.model.name.removesuffix("_aae"), f". **{note}**" if note else ""
        about = f"{kind} on {subject.data_name}, prior {of.prior}, n_z {of.n_z}{note}"
        gr.Markdown(f"## {Path(run_dir).resolve().name}\n{about}")
        with gr.Tabs(selected="walk") as tabs:
            with gr.Tab("Walk", id="walk"):
                walk = Walk(subject)
            with gr.Tab("Your image", id="yours"):
                own = YourImage(subject)
            with gr.Tab("Between", id="between"):
                Between(subject, own)
            with gr.Tab("Run", id="run"):
                Run(run_dir)
        own.leads_to(walk, tabs)
    return page


@contextlib.contextmanager
def served(page, host, port):
    """The address at which a page is served within the block.

    Raises:
        UserError: if nothing can listen there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries below Gradio
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=MAX_BODY,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(Guard)]},
                theme=gr.themes.Soft(**FONTS),
                css=(HERE / "style.css").read_text(),
                head=f"<script>{(HERE / 'page.js').read_text()}</script>",
            )
    except OSError as error:
        raise UserError(f"The page cannot be shown on {host} at port {port}: {first_line(error)}.") from None
    try:
        yield url
    finally:
        page.close(verbose=False)
        # Gradio waits for 5 seconds; a thread that still runs when Python ends has it abort.
        page.server.thread.join(CLOSING_SECONDS)
