"""What a measurement depends on beside the code: the machine and its other programs."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path


def seconds_of_others() -> float:
    """CPU seconds since the start of the machine of all processes but ours."""
    user, nice, system, _, _, *rest = Path("/proc/stat").read_text().split()[1:9]
    ticks = sum(map(int, (user, nice, system, *rest)))  # neither idle nor waiting
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _driver() -> str:
    """What nvidia-smi says of its first GPU; '' where there is no such program."""
    facts = "driver_version,clocks.sm,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.splitlines()[0]


def describe_machine(versions: dict[str, str], others: float) -> dict:
    """What a measurement depends on beside the code.

    Args:
      versions: of what else took part.
      others: share of the machine that other processes used meanwhile.
    """
    import jax

    from jaxseg.backend import usable_cores

    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    device = jax.devices()[0]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(usable_cores()),
        "device": device.device_kind,
        "driver": _driver() if device.platform == "gpu" else "",
        "others": max(others, 0.0),  # clocks of processes and machine differ
        "flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {"python": platform.python_version(), **packages, **versions},
    }
