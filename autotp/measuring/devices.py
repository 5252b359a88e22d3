"""What the device of this process is, and what it has: facts that are read, not timed."""

import os
import platform
import re
import resource
import shutil
import socket
import subprocess
from pathlib import Path

import torch

NVLINK, PCIE = "nvlink", "pcie"


def device_name(device: torch.device) -> str:
    """The device's own name; of a CPU its model, as one thread of it runs a rank."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    model = found[1] if found else platform.processor() or platform.machine()
    return f"{' '.join(model.split())}, one thread"


def memory_bytes(device: torch.device, ranks_per_node: int) -> int:
    """Installed memory; a CPU's is shared by the ranks of its node."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks_per_node


def num_units(device: torch.device) -> int:
    """Multiprocessors of a GPU, over which the tiles of a product are dealt; a CPU's rank is one thread."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def process_bytes(device: torch.device) -> int:
    """What this process holds besides tensors, communicators included: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(max(0, total - free - torch.cuda.memory_reserved(device)))
    found = re.search(r"VmRSS:\s*(\d+) kB", _text("/proc/self/status"))
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def other_users(device: torch.device, num_ranks: int) -> str:
    """Who else seems to be using the device, in words; empty if nobody. Asked before anything is measured."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free - torch.cuda.memory_reserved(device)
        return f"{used / 1e9:.1f} GB of it were in use before" if used > 2e9 else ""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if num_ranks > cores:
        return f"{num_ranks} ranks share {cores} cores"
    return f"a load of {load:.1f} on {cores} cores before" if load > 0.5 * cores else ""


def host() -> str:
    """This node, told from others also where several have one name."""
    return f"{socket.gethostname()} {_text('/proc/sys/kernel/random/boot_id').strip()}"


def link_inside(device: torch.device) -> str:
    """The kind of link between the devices of this node, as schema.json names them."""
    if device.type != "cuda":
        return "shared_memory"
    if shutil.which("nvidia-smi") is None:
        return PCIE
    run = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, timeout=60, check=False)
    return link_of_topology(run.stdout)


def link_of_topology(text: str) -> str:
    """NVLink only if every pair of GPUs in `nvidia-smi topo -m` has it: the slowest link decides a collective."""
    rows = [line.split() for line in text.splitlines() if re.match(r"GPU\d+\s", line)]
    pairs = [
        cell for index, row in enumerate(rows) for other, cell in enumerate(row[1 : len(rows) + 1]) if other != index
    ]
    return NVLINK if pairs and all(re.fullmatch(r"NV\d+", cell) for cell in pairs) else PCIE


def link_between() -> str:
    """The kind of network between nodes: InfiniBand where one of this node's ports is up and is no Ethernet."""
    for port in Path("/sys/class/infiniband").glob("*/ports/*"):
        if "ACTIVE" in _text(port / "state") and _text(port / "link_layer").strip() == "InfiniBand":
            return "infiniband"
    return "ethernet"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
