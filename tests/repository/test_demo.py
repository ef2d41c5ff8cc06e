"""The demonstration holds, and would say so if it did not."""

import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from scripts.lib.demo_report import Check, Report

ROOT = Path(__file__).parents[2]


def check(*, held: bool) -> Check:
    return Check("what", "where", "proof", size=1, records=1, seconds=1.0, held=held)


def test_report_of_nothing_is_not_sound() -> None:
    assert not Report(Console(quiet=True)).sound


def test_report_is_sound_only_while_everything_held() -> None:
    report = Report(Console(quiet=True))
    report.add(check(held=True))
    assert report.sound
    report.add(check(held=False))
    report.add(check(held=True))
    assert not report.sound


def test_statement_that_does_not_hold_spoils_the_report() -> None:
    report = Report(Console(quiet=True))
    report.add(check(held=True))
    report.require("nothing is left running", False)
    assert not report.sound


@pytest.mark.slow
def test_demonstration_holds() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "demo"], check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every check held" in done.stdout
