"""What the processes of a run know of it: the first one has it from the command line and the run folder, the others hear it."""

import json
from pathlib import Path

from lethax import processes
from lethax.domains import read_inputs
from lethax.files import to_json
from lethax.recipe.resolve import resolve
from lethax.recipe.toml import dump, parse
from lethax.runs.folder import Run


def heard(run: Run | None) -> Run:
    """The run that the first process has, in all processes. The others need no folder, and have it from here alone."""
    if run is not None:
        known = run.inputs and run.inputs.record()
        processes.told(to_json({"folder": str(run.folder), "recipe": dump(run.recipe), "inputs": known}))
        return run
    said = json.loads(processes.told(""))
    known = said["inputs"]
    return Run(
        Path(said["folder"]), resolve(parse(said["recipe"], "the recipe of the run")), known and read_inputs(known)
    )
