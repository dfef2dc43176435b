"""Builds the C core. Everything else about the package is in pyproject.toml.

The files of csrc/ are compiled here, with strict warnings; only cffi's generated file goes through
setuptools, with its own flags. Environment:

    USWAP_WERROR=1        warnings in csrc/ are errors
    USWAP_FAILPOINTS=1    failpoints and sync points are compiled in (the tests need them)
    USWAP_DEBUG=1         debug invariants, -O1
    USWAP_SANITIZE=LIST   -fsanitize=LIST, for example address,undefined
    CC, CFLAGS, LDFLAGS   as everywhere
"""

import concurrent.futures
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
# The last: callers' threads may have stacks as small as 256 KiB, and so have some of ours.
WARNINGS = ["-Wall", "-Wextra", "-Wundef", "-Wshadow", "-Wconversion", "-Wframe-larger-than=32768"]
XXHASH_PROBE = (
    "#include <xxhash.h>\nint uswap_probe_xxhash(void);\n"
    "int uswap_probe_xxhash(void) { return XXH_VERSION_NUMBER; }\n"
)
URING_PROBE = (
    "#include <liburing.h>\nint uswap_probe_uring(struct io_uring *ring);\n"
    "int uswap_probe_uring(struct io_uring *ring) { return io_uring_queue_init(8, ring, 0); }\n"
)
CRYPTO_PROBE = (
    "#include <openssl/evp.h>\nint uswap_probe_crypto(EVP_CIPHER_CTX *context);\n"
    "int uswap_probe_crypto(EVP_CIPHER_CTX *context) {\n"
    'return EVP_CipherInit_ex(context, EVP_CIPHER_fetch(NULL, "AES-128-XTS", NULL), NULL, NULL, NULL, 1); }\n'
)


def is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def sanitizer_flags() -> list[str]:
    kinds = os.environ.get("USWAP_SANITIZE", "")
    return [f"-fsanitize={kinds}", "-fno-omit-frame-pointer"] if kinds else []


def links(source: str, *arguments: str) -> bool:
    """True if source compiles and links into a shared object with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.c"
        path.write_text(source)
        command = [
            *compiler(),
            "-shared",
            "-fPIC",
            "-w",
            str(path),
            "-o",
            str(path.with_suffix(".so")),
            *arguments,
        ]
        return subprocess.run([*command, "-Wl,-z,defs"], capture_output=True, check=False).returncode == 0


def find_uring() -> tuple[list[str], list[str]]:
    """(compiler flags, linker arguments) for liburing: static if possible, so that a wheel needs no
    package."""
    for argument in ("-l:liburing.a", "-luring"):
        if links(URING_PROBE, argument):
            return ["-DUSWAP_HAVE_URING"], [argument]
    print(
        "notice: liburing not found (Debian, Ubuntu: liburing-dev): building with synchronous I/O only",
        file=sys.stderr,
    )
    return [], []


def find_crypto() -> tuple[list[str], list[str]]:
    """(compiler flags, linker arguments) for libcrypto 3: static and hidden only. The core's copy must be its
    own: its allocator is (csrc/io/key_memory.c), and what else the process does with OpenSSL must not reach it."""
    arguments = ["-l:libcrypto.a", "-Wl,--exclude-libs,libcrypto.a", "-ldl"]
    if links(CRYPTO_PROBE, *arguments):
        return ["-DUSWAP_HAVE_CRYPTO"], arguments
    print(
        "notice: libcrypto.a not found (Debian, Ubuntu: libssl-dev): building without Pool(encrypt=True)",
        file=sys.stderr,
    )
    return [], []


def require_xxhash() -> None:
    if not links(XXHASH_PROBE):
        raise SystemExit(
            "error: no working C compiler, or the header xxhash.h is missing. Install both:\n"
            "    apt install gcc libc6-dev libxxhash-dev      (Debian, Ubuntu)\n"
            "    dnf install gcc xxhash-devel                 (Fedora)"
        )


def core_flags(found: list[str]) -> list[str]:
    flags = [
        "-std=gnu11",
        "-g",
        *WARNINGS,
        "-fPIC",
        "-fvisibility=hidden",
        "-ftls-model=initial-exec",
        "-pthread",
    ]
    flags += ["-O1", "-DUSWAP_DEBUG"] if is_set("USWAP_DEBUG") else ["-O2"]
    flags += ["-DUSWAP_FAILPOINTS"] if is_set("USWAP_FAILPOINTS") else []
    flags += ["-Werror"] if is_set("USWAP_WERROR") else []
    return [
        *flags,
        *found,
        *sanitizer_flags(),
        f"-I{CSRC.relative_to(ROOT)}",
        *shlex.split(os.environ.get("CFLAGS", "")),
    ]


def is_current(target: Path, dependencies: Path) -> bool:
    """True if the object is newer than everything its dependency file (gcc -MD) names, as seen from ROOT."""
    if not target.exists() or not dependencies.exists():
        return False
    words = dependencies.read_text().replace("\\\n", " ").split()[1:]
    made = target.stat().st_mtime_ns
    files = [ROOT / word for word in words]
    return all(file.exists() and file.stat().st_mtime_ns < made for file in files)


def compile_one(source: Path, target: Path, flags: list[str]) -> Path:
    dependencies = target.with_suffix(".d")
    if not is_current(target, dependencies):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Under a name of its own first: an interrupted compiler leaves no half object that looks current.
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        # From ROOT, by relative paths: a copy of the tree may use the objects as they are.
        name = str(source.relative_to(ROOT))
        command = [*compiler(), *flags, "-MD", "-MF", str(dependencies), "-c", name, "-o", str(fresh)]
        subprocess.run(command, cwd=ROOT, check=True)
        fresh.replace(target)
    return target


def objects_folder(flags: list[str]) -> Path:
    """Each set of flags has a folder: changing back and forth costs nothing."""
    return ROOT / "build" / "core" / hashlib.sha256(" ".join([*compiler(), *flags]).encode()).hexdigest()[:12]


def compile_all(sources: list[Path], flags: list[str]) -> list[str]:
    """Compiles files of csrc/ and returns the objects."""
    folder = objects_folder(flags)
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as workers:
        jobs = [
            workers.submit(compile_one, source, folder / source.relative_to(CSRC).with_suffix(".o"), flags)
            for source in sources
        ]
        return [str(job.result()) for job in jobs]


# ---- libuswap-run.so: the core in front of an unmodified program (csrc/run/) --------------------------------

RUN = CSRC / "run"
# What the core and jemalloc mean the kernel's own by: the library has functions of these names for the program.
CORE_CALLS = {
    name: f"run_core_{name}"
    for name in (
        "mmap",
        "munmap",
        "mprotect",
        "madvise",
        "mremap",
        "mlock",
        "munlock",
        "mincore",
        "close",
        "open",
        "eventfd",
        "memfd_create",
        "socket",
        "accept4",
        "recvmsg",
        "fcntl",
        "mkostemp",
        "pipe2",
        "syscall",
        "ioctl",
        "fstat",
        "pthread_create",
        "pthread_atfork",
    )
} | {
    "io_uring_queue_init": "run_core_queue_init",
    **{name: f"run_private_{name}" for name in ("malloc", "calloc", "realloc", "free")},
}
HEAP_CALLS = {name: f"run_heap_{name}" for name in ("mmap", "munmap", "mprotect", "madvise")} | {
    "pthread_atfork": "run_heap_atfork",
    "close": "run_core_close",
    **{
        name: f"run_je_{name}"
        for name in (
            "malloc",
            "calloc",
            "realloc",
            "free",
            "memalign",
            "posix_memalign",
            "aligned_alloc",
            "valloc",
            "malloc_usable_size",
            "mallctl",
            "malloc_conf",
            "__libc_malloc",
            "__libc_calloc",
            "__libc_realloc",
            "__libc_free",
            "__libc_memalign",
        )
    },
}


def compile_core(found: list[str]) -> list[str]:
    """The objects of the core itself; mutants/builder.py calls this, too."""
    return compile_all(sorted(path for path in CSRC.rglob("*.c") if RUN not in path.parents), core_flags(found))


def find_jemalloc() -> Path | None:
    """jemalloc's archive of position-independent code, or None."""
    command = [*compiler(), "-print-file-name=libjemalloc_pic.a"]
    path = Path(subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip())
    if path.is_file() and shutil.which("objcopy"):
        return path
    print(
        "notice: libjemalloc_pic.a or objcopy not found (Debian, Ubuntu: libjemalloc-dev, binutils): building "
        "without `uswap run`",
        file=sys.stderr,
    )
    return None


def renamed(source: Path, target: Path, names: dict[str, str]) -> Path:
    """A copy of an object or archive that calls functions by other names."""
    words = [word for name, other in names.items() for word in ("--redefine-sym", f"{name}={other}")]
    subprocess.run(["objcopy", *words, str(source), str(target)], check=True)
    return target


def link_run_library(target: Path, core: list[str], jemalloc: Path, found: list[str], arguments: list[str]) -> None:
    """Links target of the objects of the core, those of csrc/run and jemalloc."""
    flags = core_flags(found)
    folder = objects_folder(flags)
    own = compile_all(sorted(RUN.glob("*.c")), flags)
    whole = folder / "core.o"
    subprocess.run(["ld", "-r", "-o", str(whole), *core], check=True)
    pieces = [
        str(renamed(whole, folder / "core-run.o", CORE_CALLS)),
        *own,
        str(renamed(jemalloc, folder / "jemalloc-run.a", HEAP_CALLS)),
    ]
    fresh = target.with_suffix(".tmp")
    command = [*compiler(), "-shared", "-o", str(fresh), *pieces, *arguments, "-pthread", "-lm", "-ldl"]
    script = RUN / "exports.map"
    subprocess.run([*command, "-Wl,-z,defs", "-Wl,-z,relro", f"-Wl,--version-script={script}"], check=True)
    fresh.replace(target)


class BuildExtension(build_ext):
    """Compiles the core with its own flags, then lets setuptools compile cffi's file and link both."""

    def build_extension(self, ext):  # type: ignore[no-untyped-def]
        require_xxhash()
        uring_flags, uring_arguments = find_uring()
        crypto_flags, crypto_arguments = find_crypto()
        try:
            found = [*uring_flags, *crypto_flags]
            objects = compile_core(found)
            jemalloc = None if os.environ.get("USWAP_SANITIZE") else find_jemalloc()
            if jemalloc:
                folder = Path(self.get_ext_fullpath(ext.name)).parent
                folder.mkdir(parents=True, exist_ok=True)
                link_run_library(
                    folder / "libuswap-run.so", objects, jemalloc, found, [*uring_arguments, *crypto_arguments]
                )
        except subprocess.CalledProcessError as failure:
            raise SystemExit(f"error: failed: {shlex.join(failure.cmd)}") from None
        ext.extra_objects = objects
        ext.extra_link_args = ["-pthread", "-lm", *sanitizer_flags(), *uring_arguments, *crypto_arguments]
        self.force = True  # setuptools cannot see that an object changed; linking takes an instant
        super().build_extension(ext)

    def copy_extensions_to_source(self):  # type: ignore[no-untyped-def]
        super().copy_extensions_to_source()
        for name in (Path(self.build_lib) / "uswap").glob("libuswap-run.so"):
            shutil.copy(name, ROOT / "src" / "uswap" / name.name)


# The Python package imports anywhere (its CLI says what is missing); only Linux has userfaultfd.
on_linux = sys.platform.startswith("linux")
setup(
    cffi_modules=["src/uswap/_ffi_build.py:ffibuilder"] if on_linux else [],
    cmdclass={"build_ext": BuildExtension} if on_linux else {},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if on_linux else {},
)
