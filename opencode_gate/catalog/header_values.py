"""`{env:NAME}` in the value of a header: the secret stays in the environment, not in a file.

The invariant: a filled-in value exists only in the process that sends it.
"""

import re
from collections.abc import Mapping

from opencode_gate.core.errors import ConfigError

_REFERENCE = r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}"


def variables_in(value: str) -> tuple[str, ...]:
    """The variables a header's value refers to."""
    return tuple(re.findall(_REFERENCE, value))


def sent_headers(headers: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The headers with every `{env:NAME}` filled in.

    Raises:
        ConfigError: a variable is not set.
    """
    return {name: _filled(name, value, environ) for name, value in headers.items()}


def _filled(header: str, value: str, environ: Mapping[str, str]) -> str:
    for name in variables_in(value):
        if not environ.get(name):
            raise ConfigError(
                "bad-config",
                f"the header {header} needs the variable {name}, which is not set",
                hint=f"export {name}=… and start again",
            )
    return re.sub(_REFERENCE, lambda match: environ[match[1]], value)
