"""What git tracks is what people install: the wheel is built from a clean copy and compared."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "protocol/sth_protocol": "sth_protocol",
    "sandbox/sth_sandbox": "sth_sandbox",
    "sandbox/sth": "sth",
    "agent/sth_agent": "sth_agent",
    "broker/sth_broker": "sth_broker",
    "client/sth_client": "sth_client",
}


@pytest.mark.slow
def test_wheel_holds_every_tracked_file_of_the_packages(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    archive = tmp_path / "source.tar"
    subprocess.run(["git", "archive", "-o", str(archive), "HEAD"], cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(copy)], check=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", *PACKAGES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    wanted = {
        name + path.removeprefix(folder)
        for path in listed
        for folder, name in PACKAGES.items()
        if path.startswith(folder + "/")
    }
    assert built == wanted
