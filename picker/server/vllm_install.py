"""The real vLLM for CPU and its models, made once under `.cache` of the checkout by the recipes in `e2e/vllm`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
RECIPES = CHECKOUT / "e2e" / "vllm"
IMPOSSIBLE = 69
"""install.sh's exit status where no matching wheels exist (EX_UNAVAILABLE)."""


class InstallError(Exception):
    """A step of the install failed; the message carries the end of its output."""


class CannotInstall(InstallError):
    """vLLM does not install on this machine: no wheel for its platform, or no CPU build of torch within pip's reach."""


@dataclass(frozen=True, slots=True)
class VllmInstall:
    """A venv with vLLM, and one folder per model below `models`."""

    venv: Path = CACHE / "vllm-venv"
    models: Path = CACHE / "models"

    def model(self, name: str) -> Path:
        return self.models / name


async def ensure_vllm(
    models: tuple[str, ...] = ("smollm2",), *, say: Callable[[str], None] = print, install: VllmInstall | None = None
) -> VllmInstall:
    """Install vLLM and make the named models (`smollm2`, `tiny`) where they are missing; says each step's lines.

    About three minutes and 3 GB the first time, a fraction of a second after. Raises CannotInstall, or InstallError
    when a step fails for another reason or the recipes are not there because picker runs outside its checkout.
    """
    install = install or VllmInstall()
    if not RECIPES.is_dir():
        raise InstallError(f"real engines need picker's source checkout: there is no {RECIPES}")
    await _step([str(RECIPES / "install.sh"), str(install.venv)], say)
    for name in models:
        if not (install.model(name) / ".made").is_file():
            python = str(install.venv / "bin" / "python")
            await _step([python, str(RECIPES / "make_model.py"), name, str(install.model(name))], say)
    return install


async def _step(argv: list[str], say: Callable[[str], None]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    last: list[str] = []
    try:
        while line := await _line(process.stdout):
            # pip tells of every index that it cannot reach, once per package.
            if not line.startswith("WARNING: "):
                last = [*last[-19:], line]
                say(line)
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
    if status:
        kind = CannotInstall if status == IMPOSSIBLE else InstallError
        raise kind("\n".join(last) or f"{argv[0]} ended with {status}")


async def _line(output: asyncio.StreamReader) -> str:
    """The next line that says something, '' at the end; a line too long for the buffer (a progress bar) is cut."""
    while True:
        try:
            raw = await output.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            raw = await output.read(overrun.consumed)
        except asyncio.IncompleteReadError as end:
            raw = end.partial
            if not raw:
                return ""
        if line := raw.decode(errors="replace").rpartition("\r")[2].strip():
            return line
