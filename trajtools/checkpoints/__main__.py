"""The conversion as a process: one JSON request on stdin, JSON events on stdout, a line each.

The request holds the arguments of `trajtools.checkpoints.convert` and ``command``, what the user typed. The events:
``{"done": 3, "states": 10}``, and at the end ``{"conversion": {...}}`` or
``{"error": "...", "fault": false, "trace": ""}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from typing import Any

from trajtools.checkpoints.convert import convert
from trajtools.errors import TrajtoolsError


def main() -> int:
    """Answer one request."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a package prints is no event

    def tell(**event: Any) -> None:
        print(json.dumps(event), file=events, flush=True)

    try:
        request = json.load(sys.stdin)
        sys.argv[:] = request.pop("command")  # goes to the provenance
        conversion = convert(**request, progress=lambda done, states: tell(done=done, states=states))
    except KeyboardInterrupt:
        return 130
    except (TrajtoolsError, OSError, MemoryError) as problem:
        tell(error=str(problem) or type(problem).__name__, fault=False, trace=traceback.format_exc())
        return 1
    except Exception as problem:
        tell(error=f"{type(problem).__name__}: {problem}", fault=True, trace=traceback.format_exc())
        return 1
    # From here on the file has its name.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell(conversion={**asdict(conversion), "paths": list(map(os.fspath, conversion.paths))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
