"""The processor: which instructions it has, and which of TensorFlow's kernels use them best."""

import os
import platform
import subprocess
from pathlib import Path

# Those that decide how fast matrices are multiplied, each beside those before it.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# How many of them ONEDNN_MAX_CPU_ISA leaves; what is not here leaves all.
LEVELS = (
    ("SSE41", "AVX"),
    ("AVX2", "AVX2_VNNI", "AVX2_VNNI_2"),
    ("AVX512_CORE", "AVX512_CORE_VNNI"),
    ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"),
)
LEFT = {name: count for count, names in enumerate(LEVELS) for name in names}
CPU_INFO, GPU = Path("/proc/cpuinfo"), Path("/dev/nvidiactl")
HIDDEN = "", "-1"  # what CUDA_VISIBLE_DEVICES hides all GPUs with
GPU_NAMES = "nvidia-smi", "--query-gpu=name", "--format=csv,noheader"


def choose_kernels():
    """Has TensorFlow take oneDNN's kernels on every x86 processor, unless the environment says otherwise.

    By itself it takes them only where the processor has AVX512_VNNI, AVX512_BF16 or AMX; docs/speed.md says
    what the others gain. Works only before TensorFlow is imported.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def kernels():
    """What the last digits of all figures depend on, a dict of texts."""
    return {
        "instructions": " ".join(instructions()) or "unknown",
        "oneDNN": {"1": "on", "0": "off"}.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS"), "default"),
    }


def instructions():
    """Those of `INSTRUCTIONS` that the processor has and oneDNN may use, a tuple of texts."""
    left = LEFT.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper(), len(INSTRUCTIONS))
    flags = cpu_info().get("flags", "").split()
    return tuple(name for name in INSTRUCTIONS[:left] if name in flags)


def precision(wanted):
    """The precision of --precision: for auto bfloat16 where it is faster, else float32.

    It is faster where the processor multiplies it in hardware; on a GPU it gains little (docs/speed.md).
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if multiplies_bfloat16() and not has_gpu() else "float32"


def has_gpu():
    """Whether there is an NVIDIA GPU that the program may use."""
    return GPU.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in HIDDEN


def multiplies_bfloat16():
    """Whether the processor has instructions for it that oneDNN may use."""
    return bool(BFLOAT16.intersection(instructions()))


def name():
    """What the processor calls itself, or its architecture."""
    return cpu_info().get("model name", platform.machine())


def cpu_info():
    """The first processor of Linux's list, a dict of texts; {} on other systems."""
    try:
        first = CPU_INFO.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def gpus():
    """What the NVIDIA GPUs call themselves that the program may use, a tuple of texts."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return ()
    try:
        names = subprocess.run(GPU_NAMES, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(names.splitlines())
