"""Makes the extension module ``uswap._uswap`` from csrc/include/uswap_api.h (run by setup.py, never at run
time).

The header and its parts are read as they are, so that the declarations Python sees and those that C compiles cannot
drift apart.
"""

import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def declarations() -> str:
    """What the header declares: its parts in place of its #include lines, without other preprocessor lines."""
    include = CSRC / "include"
    header = (include / "uswap_api.h").read_text(encoding="utf-8")
    whole = re.sub(r'#include "(.*)"', lambda part: (include / part[1]).read_text(encoding="utf-8"), header)
    return re.sub(r"(?m)^#.*$", "", whole)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "uswap._uswap",
    "#include <stdint.h>\n#include <stddef.h>\n#include <uswap_api.h>\n",
    include_dirs=[str(CSRC / "include"), str(CSRC)],
)
