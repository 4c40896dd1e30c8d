"""The process that imports what lethax needs. It is a process of its own, because a broken library can end it, or never end.

It prints a line of JSON before and after everything that it tries.
"""

import importlib
import json
import sys
from typing import Any


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _jax() -> dict[str, Any]:
    """Multiply two numbers in a compiled program."""
    import jax
    import jax.numpy as jnp

    product = float(jax.jit(lambda x, y: x * y)(jnp.float32(6.0), jnp.float32(7.0)))
    devices = [f"{device.device_kind}" for device in jax.devices()]
    return {"product": product, "backend": jax.default_backend(), "devices": devices}


def _plugins(files: list[str]) -> dict[str, Any]:
    """Load the plugins that are loaded at every start, and the files that the command names."""
    from lethax import plugins

    plugins.load(files)
    return {"plugins": True}


def main(words: list[str]) -> None:
    """Import the modules one after the other, compile one multiplication, and load the plugins.

    words: the modules, and then "--plugin" and a file for each plugin that the command names.
    """
    end = words.index("--plugin") if "--plugin" in words else len(words)
    modules, files = words[:end], words[end + 1 :: 2]
    tried: list[tuple[str, Any]] = [(name, lambda name=name: importlib.import_module(name) and {}) for name in modules]
    for name, act in [*tried, ("a program of JAX", _jax), ("plugins", lambda: _plugins(files))]:
        _say(begun=name)
        try:
            _say(done=name, **act())
        except BaseException as error:  # whatever a broken library raises
            _say(done=name, error=f"{type(error).__name__}: {error}"[:1000])


if __name__ == "__main__":
    main(sys.argv[1:])
