# The compiled core (cffi, API mode). Its declarations are csrc/include/uswap_api.h; cffi has no static types.
from typing import Any

ffi: Any
lib: Any
