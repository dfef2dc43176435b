#!/usr/bin/env bash
# Makes sure that what the build needs from the system is there: Python's headers and venv, liburing, xxhash.h.
# Installs what is missing with apt where that is possible, and otherwise says what to install. Usage: prepare.sh PYTHON
set -euo pipefail
python=${1:-python3}

works() { "$@" >/dev/null 2>&1; }
has_header() { echo "#include <$1>" | works "${CC:-cc}" -E -x c -; }

missing_packages() {
    works "$python" -c 'import ensurepip, venv' || echo python3-venv
    works "$python" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' ||
        echo python3-dev
    works "${CC:-cc}" --version || echo gcc
    { works "${CC:-cc}" --version && has_header stdlib.h; } || echo libc6-dev
    has_header xxhash.h || echo libxxhash-dev
    has_header liburing.h || echo liburing-dev
}

missing=$(missing_packages | tr '\n' ' ')
[ -z "${missing// /}" ] && exit 0
echo "The build needs: $missing"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
    works sudo -n true || as_root=(false)
fi
if works apt-get --version && [ "${as_root[0]:-}" != false ]; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends $missing; } ||
        echo "apt-get could not install them."
fi

missing=$(missing_packages | tr '\n' ' ')
case " $missing " in
"  ") ;;
" liburing-dev  ") echo "Going on without liburing: I/O will be synchronous." ;;
*)
    echo "Still missing: $missing"
    echo "Please install them, for example:  sudo apt-get install $missing"
    echo "(for a Python that is not the system's, its own headers and venv module), and run make again."
    exit 1
    ;;
esac
