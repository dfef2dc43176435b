"""Makes the extension module ``uswap._uswap`` from csrc/include/uswap_api.h (run by setup.py, never at run
time).

The header is read verbatim, so that the declarations Python sees and those C compiles cannot drift apart.
"""

from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"

ffibuilder = FFI()
ffibuilder.cdef((CSRC / "include" / "uswap_api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "uswap._uswap",
    "#include <stdint.h>\n#include <stddef.h>\n#include <uswap_api.h>\n",
    include_dirs=[str(CSRC / "include"), str(CSRC)],
)
