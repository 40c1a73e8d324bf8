"""Where a run came from: software, versions, command, machine, start time; of what is loaded already."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
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


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are loaded in this process; imports none."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in SOFTWARE}
    found = {name: str(version) for name, version in loaded.items() if version is not None}
    return {"python": platform.python_version(), **found}


def seeds() -> dict[str, int]:
    """Seeds that can be read without touching a generator: PYTHONHASHSEED, and the seed of a loaded torch."""
    found = {}
    if os.environ.get("PYTHONHASHSEED", "").isdigit():
        found["PYTHONHASHSEED"] = int(os.environ["PYTHONHASHSEED"])
    initial = getattr(sys.modules.get("torch"), "initial_seed", None)
    if initial is not None:
        found["torch"] = int(initial())
    return found


def provenance(settings: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the file says about the origin of a run."""
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
        "recorder": dict(settings),
        **({"user": dict(given)} if given else {}),
    }
