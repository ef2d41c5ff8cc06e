"""What a machine that lacks something is told, and that it is refused for real."""

from pathlib import Path

import pytest
from tests.sandbox.spawned import Refused, Spawner, make_package, run_inside

from sth_sandbox.actions import SetupFailed
from sth_sandbox.report import ABSENT, ENFORCED, REQUIRED, Facts, make_report, missing, refusal

ROOT = Facts(privileged=True, container=False, sysctls={})
PACKAGE = make_package({"main.py": "def run(context, input):\n    print('ran')\n"})


def ordinary(**sysctls: str) -> Facts:
    named = {name.replace("__", "/"): value for name, value in sysctls.items()}
    return Facts(privileged=False, container=False, sysctls=named)


def test_report_of_a_complete_machine() -> None:
    report = make_report(None, ROOT)
    assert missing(report) == []
    assert {report[name]["state"] for name in REQUIRED} == {ENFORCED}
    assert report["resource_groups"]["state"] == ABSENT


@pytest.mark.parametrize(
    ("failure", "facts", "fix"),
    [
        (
            SetupFailed("namespaces", "clone: Operation not permitted"),
            ordinary(kernel__unprivileged_userns_clone="0"),
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            SetupFailed("namespaces", "clone: No space left on device"),
            ordinary(user__max_user_namespaces="0"),
            "sysctl -w user.max_user_namespaces=",
        ),
        (
            SetupFailed("user namespace", "Operation not permitted"),
            ordinary(kernel__apparmor_restrict_unprivileged_userns="1"),
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (SetupFailed("proc", "mount: Operation not permitted"), ordinary(), "unmasked"),
        (SetupFailed("seccomp", "Invalid argument"), ROOT, "CONFIG_SECCOMP_FILTER"),
        (SetupFailed("pivot_root", "Invalid argument"), ROOT, "initramfs"),
        (SetupFailed("root file system", "mount_setattr: Function not"), ROOT, "5.14"),
        (SetupFailed("namespaces", "x"), Facts(True, True, {}), "CAP_SYS_ADMIN"),
    ],
)
def test_report_names_the_fix(failure: SetupFailed, facts: Facts, fix: str) -> None:
    report = make_report(failure, facts)
    assert missing(report)
    message, hint = refusal(report)
    assert failure.reason in message
    assert fix in hint


def test_report_of_an_unknown_step_is_still_a_refusal() -> None:
    assert missing(make_report(SetupFailed("new step", "x"), ROOT))


class WithoutNamespaces(Spawner):
    """A spawner below our own filter, which denies it all namespaces: a machine without them."""

    def command(self, *options: str) -> list[str]:
        code = (
            "import os, sys\n"
            f"sys.path.insert(0, {str(self._sources())!r})\n"
            "from sth_sandbox import actions, credentials\n"
            "actions.perform(actions.steps(credentials.filter_actions()))\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        python = super().command()[0]
        return [python, "-c", code, *super().command(*options)]


def test_spawner_refuses_on_a_machine_without_namespaces() -> None:
    spawner = WithoutNamespaces()
    try:
        agent = spawner.agent()
        hello = agent.ask("hello", version=1)
        assert hello["sandboxed"] is True
        # The filter lets no namespace through, which it does not even need to for clone alone.
        assert hello["report"]["namespaces"]["state"] == ABSENT
        for ask in (
            lambda: agent.unpack(PACKAGE),
            lambda: agent.start("0" * 64),
        ):
            with pytest.raises(Refused, match="cannot run programs in a sandbox") as refused:
                ask()
            assert refused.value.code == "SANDBOX_REFUSED"
            assert refused.value.hint
    finally:
        spawner.close()


def test_spawner_runs_without_a_sandbox_only_when_allowed_and_says_so() -> None:
    spawner = WithoutNamespaces(options=["--allow-unsandboxed"])
    try:
        agent = spawner.agent()
        hello = agent.ask("hello", version=1)
        assert hello["sandboxed"] is False
        assert hello["report"]["namespaces"]["state"] == ABSENT
        started = agent.start(agent.unpack(PACKAGE))
        assert started.answer["sandboxed"] is False
        assert Path(started.answer["path"], "main.py").exists()
        agent.run(started)
        assert started.read_all("stdout") == b"ran\n"
        assert run_inside(agent, "result = [1]") == [1]
        log = (spawner.directory / "spawner.log").read_text(encoding="utf-8")
        assert "WITHOUT A SANDBOX" in log
    finally:
        spawner.close()


def test_spawner_allowed_to_go_without_still_makes_the_sandbox_that_it_can() -> None:
    spawner = Spawner(options=["--allow-unsandboxed"])
    try:
        agent = spawner.agent()
        assert agent.ask("hello", version=1)["sandboxed"] is True
        assert run_inside(agent, "import os\nresult = os.getpid()") == 1
    finally:
        spawner.close()
