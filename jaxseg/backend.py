"""What is decided about the machine: XLA flags, memory, precision, compilation cache.

`use_huge_pages` comes first of all, `set_xla_flags` before jax starts. Flags are set
for the jaxlib that is known to have them only: an unknown flag ends the process.
"""

import importlib.metadata
import os
import resource
import sys
from pathlib import Path

# oneDNN calls halve the time of a step in bfloat16, where a CPU has it; in float32 they
# take a tenth off. They work since jaxlib 0.12; older ones have flags without effect.
ONEDNN_CALLS = "xla_cpu_experimental_onednn_custom_call=true"
CPU_FLAGS = ("xla_cpu_use_onednn=true", ONEDNN_CALLS)
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def set_xla_flags() -> None:
    """Adds to XLA_FLAGS what helps and the user has not set; before jax starts."""
    if not _has_onednn_calls():
        return
    set_by_user = os.environ.get("XLA_FLAGS", "")
    added = [f"--{flag}" for flag in CPU_FLAGS if flag.split("=")[0] not in set_by_user]
    os.environ["XLA_FLAGS"] = " ".join([set_by_user, *added]).strip()


def use_huge_pages() -> None:
    """Starts the program anew, where Linux has pages of 2 MB for its large arrays.

    XLA:CPU asks for the buffers of a step anew in every call, and the C library gives
    those of more than 32 MB back to the system at once, from where they come zeroed, a
    page at a time: in pages of 4 kB a fifth of SegDecNet's step, in these 3 %. glibc
    reads its settings when a process starts; other C libraries ignore them.
    """
    allowed = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if "hugetlb" in settings or not allowed.is_file():
        return
    if "[madvise]" in allowed.read_text():  # else all programs have them, or none
        os.environ["GLIBC_TUNABLES"] = f"{settings}:{HUGE_PAGES}".lstrip(":")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def enable_compilation_cache(cache_dir: Path) -> str:
    """Keeps compiled programs on disk where that works; a sentence on what was done."""
    import jax

    if jax.default_backend() == "cpu" and _asks_for_onednn():
        jax.config.update("jax_enable_compilation_cache", False)  # set by the user
        return "compiled programs with oneDNN calls cannot be kept on disk"
    if jax.config.jax_compilation_cache_dir is None:
        folder = cache_dir / "compiled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # what needs the folder refuses it
            return f"compiled programs are not kept in {folder}: {error.strerror}"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return f"compiled programs are kept in {jax.config.jax_compilation_cache_dir}"


def has_jaxlib(major: int, minor: int) -> bool:
    """Whether the installed jaxlib is that release or a newer one."""
    version = importlib.metadata.version("jaxlib").split(".")
    return (int(version[0]), int(version[1])) >= (major, minor)


def resolve_precision(precision: str) -> str:
    """'auto' is bfloat16 where it is faster: GPU, TPU, CPUs with the instructions.

    On a CPU with the flags of `set_xla_flags` only, which a program that just imports
    jaxseg has not: there bfloat16 is no faster.
    """
    import jax

    if precision != "auto":
        return precision
    if jax.default_backend() != "cpu":
        return "bfloat16"
    has_calls = _has_onednn_calls() and _asks_for_onednn()
    return "bfloat16" if has_calls and _cpu_has_bfloat16() else "float32"


def _asks_for_onednn() -> bool:
    return ONEDNN_CALLS in os.environ.get("XLA_FLAGS", "")


def _has_onednn_calls() -> bool:
    return has_jaxlib(0, 12) and not has_jaxlib(0, 13)


def _cpu_has_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peak_memory_gigabytes() -> float:
    """Peak use: of the device where it tells, else of this process."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def usable_cores() -> list[int]:
    """Numbers of the processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS
