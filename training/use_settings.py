"""The settings of what uses a trained model and trains nothing."""

import dataclasses

from utils.settings import setting


@dataclasses.dataclass(frozen=True)
class UseSettings:
    """What is asked for in place of a training; a part of `training.settings.Config`."""

    export: str = setting(
        "",
        "Train nothing, but write the model of run_dir for use without this program: onnx or saved_model.",
        "output",
        pattern="(onnx|saved_model)?",
        example="onnx or saved_model",
        changeable=True,
    )
    explore: bool = setting(
        False,
        "Train nothing, but open a page in which the model of run_dir is walked through.",
        "output",
        changeable=True,
    )
    explore_host: str = setting(
        "127.0.0.1",
        "Address that the page listens on; 0.0.0.0 lets the whole network in.",
        "output",
        pattern=r"[\w.:-]{1,255}",
        example="an address such as 127.0.0.1",
        only={"explore": (True,)},
        changeable=True,
    )
    explore_port: int = setting(
        7860,
        "Port that the page listens on.",
        "output",
        at_least=1,
        at_most=65_535,
        only={"explore": (True,)},
        changeable=True,
    )


# Their names: none of them says anything about a run.
USES = tuple(field.name for field in dataclasses.fields(UseSettings))
