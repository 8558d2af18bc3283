"""Which arithmetic `precision: auto` means where the plan is made."""

from pathlib import Path

CPU_FLAGS = Path("/proc/cpuinfo")
NVIDIA_DEVICE = Path("/dev/nvidia0")


def resolve_precision(wanted: str) -> str:
    """`bfloat16` or `float32`; auto takes bfloat16 where the processor or the GPU multiplies it natively."""
    if wanted != "auto":
        return wanted
    if NVIDIA_DEVICE.exists():
        import torch

        # By default torch counts emulation in, which is slower than float32.
        is_native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if is_native else "float32"
    flags = CPU_FLAGS.read_text(encoding="utf-8") if CPU_FLAGS.exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
