"""Devices: which one to use, and what machine this is."""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from pathlib import Path

import torch
from torch import distributed


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the accelerator if there is one, else the CPU.

    Raises ValueError for a device that is not available."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device "{name}" is not available: use cpu or auto') from error
    if device.type == "meta":
        raise ValueError("the device meta cannot compute: use cpu or auto")
    return device


def launched() -> bool:
    """Whether `torchrun`, or a launcher like it, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def rank() -> int:
    """The number of this process; 0 if there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def world_size() -> int:
    """How many processes work together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def describe_machine() -> str:
    """One line about this machine: processor, cores, accelerator, system and versions."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor}, {os.cpu_count()} cores{accelerator}, {platform.system()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def describe_run() -> str:
    """One line of Markdown about this run: the command, date and machine. Results start with it."""
    called = " ".join(["/".join(Path(sys.argv[0]).resolve().parts[-2:]), *sys.argv[1:]])
    return f"`python {called}` on {date.today()}, {describe_machine()}, {torch.get_num_threads()} threads.\n"
