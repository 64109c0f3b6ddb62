"""The Containerfile, read; its build stage, played without containers: python e2e/charts/containerfile.py FOLDER."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of one stage, its continued lines joined."""

    stage: int
    word: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Containerfile, in order; comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        stage = (found[-1].stage if found else -1) + (word == "FROM")
        found.append(Instruction(stage, word, rest.strip()))
    return found


def environment(stage: int) -> dict[str, str]:
    """What ENV and ARG set in a stage, PATH aside."""
    values: dict[str, str] = {}
    for each in instructions((ROOT / "Containerfile").read_text()):
        if each.stage == stage and each.word in ("ARG", "ENV"):
            for name, value in re.findall(r"(\w+)=(\S*)", each.text):
                values[name] = re.sub(r"\$(\w+)", lambda known: values.get(known[1], ""), value)
    values.pop("PATH", None)
    return values


def play(folder: Path, port: int = 29090) -> None:
    """Run the RUN lines of the build stage with /opt, /src and /var inside `folder`; then start what came of it."""
    moved = {"/opt/picker": folder / "opt", "/var/cache/picker": folder / "cache", "/src": folder / "src"}
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "src").mkdir(parents=True)
    cwd = folder / "src"
    env = {"PATH": f"{moved['/opt/picker']}/bin:{os.environ['PATH']}", "HOME": str(folder)}
    env |= {name: _moved(value, moved) for name, value in environment(0).items()}
    for each in instructions((ROOT / "Containerfile").read_text()):
        if each.stage > 0:
            break
        if each.word == "COPY":
            *sources, _ = each.text.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, folder / "src" / source, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, folder / "src" / source)
        elif each.word == "WORKDIR":
            cwd = Path(_moved(each.text, moved))
        elif each.word == "RUN":
            command = _moved(each.text, moved).replace(":9090", f":{port}")
            command = command.replace("picker serve", f"picker serve --metrics-port={port} --grpc-port={port - 20}")
            started = time.monotonic()
            subprocess.run(["sh", "-c", command], cwd=cwd, env=env, check=True)
            print(f"{time.monotonic() - started:.0f} s: {command[:60]}...")
    _report(folder, env, port)


def _report(folder: Path, env: dict[str, str], port: int) -> None:
    print("unpacked, MB:", _megabytes(folder / "opt") + _megabytes(folder / "cache"))
    with tempfile.TemporaryFile() as packed:
        subprocess.run(["tar", "-C", folder, "-cz", "opt", "cache"], stdout=packed, check=True)
        print("compressed, MB:", os.fstat(packed.fileno()).st_size // 1_000_000)
    before = _files(folder)
    env = {**env, "PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": str(folder / "opt" / "lib")}
    command = [str(folder / "opt/bin/picker"), "serve", "--endpoints=127.0.0.1:9", "--policy=learned"]
    ports = [f"--metrics-port={port}", f"--grpc-port={port - 20}"]
    started = time.monotonic()
    child = subprocess.Popen([*command, *ports], cwd="/", env=env, stderr=subprocess.DEVNULL)
    try:
        while child.poll() is None and not _answers(port):
            time.sleep(0.1)
        ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        print(f"a start takes {time.monotonic() - started:.1f} s, {cpu_s:.1f} s of CPU")
        print("files that a start wrote:", len(_files(folder) - before))
    finally:
        child.terminate()
        child.wait(60)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1):
            return True
    except OSError:
        return False


def _moved(text: str, places: dict[str, Path]) -> str:
    for place, folder in places.items():
        text = re.sub(rf"(?<![\w.]){place}\b", str(folder), text)
    return text


def _files(folder: Path) -> set[tuple[Path, int]]:
    return {(file, file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def _megabytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) // 1_000_000


if __name__ == "__main__":
    play(Path(sys.argv[1]).resolve())
