"""Where a run comes from: software, command, machine and seeds, as every writer notes them."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

SOFTWARE = (
    "trajtools",
    "numpy",
    "h5py",
    "hdf5plugin",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "equinox",
    "lightning",
    "transformers",
    "safetensors",
    "sklearn",
)


def origin() -> dict[str, Any]:
    """Provenance of what this process writes."""
    return {
        "software": versions(),
        "command": list(sys.argv),
        "start_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "host": platform.node(),
            "system": f"{platform.system()} {platform.release()}",
            "cpus": os.cpu_count(),
        },
        "seeds": seeds(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are loaded in this process; imports none."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in SOFTWARE}
    installed = {name: str(version) for name, version in loaded.items() if version is not None}
    return {"python": platform.python_version(), **installed}


def seeds() -> dict[str, int]:
    """Seeds that can be read without touching a generator: PYTHONHASHSEED, and the seed of a loaded torch."""
    result = {}
    if os.environ.get("PYTHONHASHSEED", "").isdigit():
        result["PYTHONHASHSEED"] = int(os.environ["PYTHONHASHSEED"])
    initial = getattr(sys.modules.get("torch"), "initial_seed", None)
    if initial is not None:
        result["torch"] = int(initial())
    return result
