"""The `sth` command as a process: what it prints where, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.client.answering import AnsweringServer
from tests.support.waiting import wait_for

INSTANCE = "11111111-2222-3333-4444-555555555555"
OTHER = "11111111-9999-3333-4444-555555555555"


def instance(identity: str, status: str = "running", **more: object) -> dict[str, object]:
    shown: dict[str, object] = {"id": identity, "status": status, "hubName": "edge"}
    return {**shown, "sequence": {"id": "s", "name": "hello"}, **more}


class Sth:
    """Runs `sth` with a home of its own, talking to `server`."""

    def __init__(self, home: Path, server: AnsweringServer) -> None:
        self.home = home
        self.server = server

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "STH_URL": self.server.url}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "sth_client", *words]

    def __call__(
        self, *words: str, given: bytes = b"", **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words),
            check=False,
            capture_output=True,
            input=given,
            env={**self.env, **env},
            timeout=60,
        )

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*words), stdin=pipe, stdout=pipe, stderr=pipe, env=self.env
        )


@pytest.fixture
def sth(tmp_path: Path, server: AnsweringServer) -> Sth:
    return Sth(tmp_path, server)


@pytest.fixture
def running(sth: Sth) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Processes that a test starts; ended if it fails."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "hello"
    path.mkdir()
    (path / "package.json").write_text('{"name": "hello", "version": "1", "main": "main.py"}')
    (path / "main.py").write_text("def run(context, input): pass\n")
    return path


def test_version_needs_no_broker(sth: Sth) -> None:
    done = sth("--version")
    assert (done.returncode, done.stdout[:5], done.stderr) == (0, b"sth 0", b"")


def test_commands_that_ask_no_broker_load_no_http_client(sth: Sth) -> None:
    script = (
        "import sys; from sth_client.cli import main; main(sys.argv[1:]);"
        "print({'http.client', 'aiohttp', 'asyncio', 'ssl', 'tarfile'} & set(sys.modules))"
    )
    for words in (["--version"], ["--help"], ["inst", "--help"], ["profile", "ls"]):
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, check=True, capture_output=True, env=sth.env)
        assert done.stdout.splitlines()[-1] == b"set()", words


def test_no_command_loads_aiohttp(sth: Sth) -> None:
    script = (
        "import sys; from sth_client.cli import main; code = main(['ps']);"
        "sys.exit(code or 'aiohttp' in sys.modules)"
    )
    sth.server.answer("GET /api/v1/instances", [])
    done = subprocess.run([sys.executable, "-c", script], check=False, env=sth.env)
    assert done.returncode == 0


def test_help_lists_commands_on_stdout(sth: Sth) -> None:
    done = sth("--help")
    assert done.returncode == 0
    assert b"deploy" in done.stdout
    assert b"exit codes:" in done.stdout
    assert sth().returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["isnt"], "did you mean `sth inst`?"),
        (["inst", "lss"], "did you mean `sth inst ls`?"),
        (["ps", "--al"], "unrecognized arguments: --al"),
        (["deploy"], "the following arguments are required: PATH"),
        (["--nonsense", "ps"], "unknown option --nonsense"),
        (["--url"], "--url needs a value"),
        (["ps", "--url", "host"], "'host' is not the URL of a broker"),
        (["inst", "stop", "x" * 36, "--grace", "soon"], "'soon' is not a length of time"),
        (["deploy", ".", "--args", "{}"], "--args is not a JSON array"),
        (["profile", "add", "x"], "a profile needs --url"),
    ],
)
def test_wrong_use_is_2_and_says_how(sth: Sth, words: list[str], said: str) -> None:
    done = sth(*words, STH_URL="")
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stdout == b""


def test_options_of_every_command_go_anywhere(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/instances", [instance(INSTANCE)])
    for words in (["-o", "name", "inst", "ls"], ["inst", "-oname", "ls"], ["inst", "ls", "-oname"]):
        assert sth(*words).stdout.decode() == f"{INSTANCE}\n"


def test_ps_shows_those_that_run(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/instances", [instance(INSTANCE), instance(OTHER, "completed")])
    done = sth("ps")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["ID", "SEQUENCE", "HUB", "STATUS", "AGE", "ENDED"]
    assert [line.split()[:4] for line in lines[1:]] == [["11111111", "hello", "edge", "running"]]
    assert json.loads(sth("ps", STH_OUTPUT="json").stdout) == [instance(INSTANCE)]


def test_unreachable_broker_is_6(sth: Sth) -> None:
    done = sth("ps", "--url", "http://127.0.0.1:1")
    assert done.returncode == 6
    assert done.stderr.decode() == (
        "error: no broker listens at http://127.0.0.1:1\n"
        "hint: start it with `sth-broker up`, or give another address with --url\n"
    )


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(401, "UNAUTHORIZED", 4), (409, "CONFLICT", 5), (504, "TIMED_OUT", 7), (500, "INTERNAL", 1)],
)
def test_exit_code_is_that_of_the_error(sth: Sth, status: int, code: str, exit_code: int) -> None:
    sth.server.answer("GET /api/v1/instances", {"code": code, "message": "m"}, status=status)
    done = sth("ps")
    assert done.returncode == exit_code
    assert done.stderr.startswith(b"error: m\n")


def test_deploy_prints_the_instance_and_keeps_it_as_the_last(sth: Sth, package: Path) -> None:
    sth.server.answer("POST /api/v1/sequence?name=other", {"id": "s1"})
    sth.server.answer("POST /api/v1/sequence/s1/start", {"id": INSTANCE})
    sth.server.answer(f"GET /api/v1/instance/{INSTANCE}/health", {"healthy": True, "processId": 7})
    config = package.parent / "config.toml"
    config.write_text("level = 1\n")
    done = sth(
        *("deploy", str(package), "--name", "other", "--args", '["x"]'),
        *("--config", str(config), "--set", "deep.er=true", "--output-topic", "t"),
    )
    assert done.stdout.decode() == f"{INSTANCE}\n"
    assert done.stderr.decode().startswith("packed hello 1: 2 files")
    assert sth.server.received[-1].json() == {
        "args": ["x"],
        "appConfig": {"level": 1, "deep": {"er": True}},
        "outputTopic": "t",
    }
    assert sth("inst", "health", "-", "-o", "name").stdout == b"healthy\n"


def test_deploy_follows_the_output_and_tells_a_failure(sth: Sth, package: Path) -> None:
    frame = {"file": "main.py", "line": 12, "function": "convert", "source": "return int(x)"}
    ended = instance(
        INSTANCE,
        "errored",
        terminated={"exitcode": 23, "reason": "boom"},
        error={"message": "boom", "traceback": {"frames": [frame]}},
    )
    sth.server.answer("POST /api/v1/sequence", {"id": "s1"})
    sth.server.answer("POST /api/v1/sequence/s1/start", {"id": INSTANCE})
    sth.server.stream(f"GET /api/v1/instance/{INSTANCE}/output", b"out\xff")
    sth.server.answer(f"GET /api/v1/instance/{INSTANCE}", ended)
    done = sth("deploy", str(package), "--follow", "-q")
    assert (done.returncode, done.stdout) == (8, b"out\xff")
    assert done.stderr.decode().startswith("error: Instance 11111111 ended: 23 boom\n")
    where = "  main.py:12 in convert: return int(x)\n"
    assert where in sth("deploy", str(package), "--follow").stderr.decode()
    lines = sth("inst", "show", INSTANCE).stdout.decode().splitlines()
    assert any(line.startswith("error.where:") and line.endswith(where.strip()) for line in lines)


def test_following_a_program_that_only_prints_says_where_that_is(sth: Sth, package: Path) -> None:
    sth.server.answer("POST /api/v1/sequence", {"id": "s1"})
    sth.server.answer("POST /api/v1/sequence/s1/start", {"id": INSTANCE})
    sth.server.answer(f"GET /api/v1/instance/{INSTANCE}", instance(INSTANCE, "completed"))
    sth.server.stream(f"GET /api/v1/instance/{INSTANCE}/output")
    done = sth("deploy", str(package), "--follow")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"`sth inst stdout 11111111`" in done.stderr


def test_ambiguous_beginning_lists_the_matches(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/instances", [instance(INSTANCE), instance(OTHER)])
    done = sth("inst", "out", "1111")
    assert done.returncode == 5
    # As much of each as tells them apart.
    assert "11111111-2 (hello), 11111111-9 (hello)" in done.stderr.decode()
    assert sth("inst", "out", "-").returncode == 3


def test_name_of_a_sequence_means_its_instance_that_runs(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/instances", [instance(OTHER, "completed"), instance(INSTANCE)])
    sth.server.stream(f"GET /api/v1/instance/{INSTANCE}/output", b"out")
    assert sth("inst", "out", "hello").stdout == b"out"


def test_input_from_stdin_and_from_a_file_arrives_unchanged(sth: Sth, tmp_path: Path) -> None:
    sth.server.answer(f"POST /api/v1/instance/{INSTANCE}/input", None)
    sth.server.answer(f"POST /api/v1/instance/{INSTANCE}/stdin", None)
    data = os.urandom(200_000)
    (tmp_path / "file").write_bytes(data)
    octets = "application/octet-stream"
    assert sth("inst", "in", INSTANCE, "-t", octets, given=data).returncode == 0
    assert sth("inst", "stdin", INSTANCE, str(tmp_path / "file"), "--keep-open").returncode == 0
    assert [each.body for each in sth.server.received] == [data, data]
    assert sth.server.received[0].headers["Content-Type"] == octets
    assert sth.server.received[0].headers["X-End-Stream"] == "true"
    assert sth.server.received[1].headers["X-End-Stream"] == "false"
    assert sth("inst", "in", INSTANCE, str(tmp_path / "none")).returncode == 3


def test_refusal_is_told_while_stdin_is_quiet(
    sth: Sth, running: list["subprocess.Popen[bytes]"]
) -> None:
    error = {"code": "CONFLICT", "message": "the program has ended"}

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(error, status=409)

    sth.server.handlers[f"POST /api/v1/instance/{INSTANCE}/input"] = handler
    process = sth.start("inst", "in", INSTANCE)
    running.append(process)
    # Nothing is written and nothing is closed: only the answer can end it.
    assert process.wait(30) == 5
    assert process.stderr is not None
    assert process.stderr.read() == b"error: the program has ended\n"


def test_broken_stream_is_a_failure_after_what_came(sth: Sth) -> None:
    sth.server.stream(f"GET /api/v1/instance/{INSTANCE}/output", b"part", breaks=True)
    done = sth("inst", "out", INSTANCE)
    assert (done.returncode, done.stdout) == (1, b"part")
    assert b"broke off after 4 bytes" in done.stderr


def endless(sth: Sth, route: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    sth.server.handlers[route] = handler


def test_reader_that_leaves_ends_it_quietly(sth: Sth) -> None:
    endless(sth, f"GET /api/v1/instance/{INSTANCE}/output")
    process = sth.start("inst", "out", INSTANCE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    assert process.stdout.read(1) == b"\0"
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdin.close()


def test_interrupt_is_130_and_says_what_keeps_running(
    sth: Sth, running: list["subprocess.Popen[bytes]"]
) -> None:
    endless(sth, f"GET /api/v1/instance/{INSTANCE}/output")
    process = sth.start("inst", "out", INSTANCE)
    running.append(process)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\0"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Instance 11111111 keeps running; `sth inst stop 11111111` ends it." in said


def test_logs_are_readable_or_as_they_are(sth: Sth) -> None:
    line = b'{"msg":"hi\\u001b[2J","level":"info","ts":1700000000000}\n'
    sth.server.stream(f"GET /api/v1/instance/{INSTANCE}/log", line, b"no entry")
    shown = sth("inst", "logs", INSTANCE).stdout.decode().splitlines()
    assert shown[0].endswith("INFO  hi\\x1b[2J")
    assert shown[1] == "no entry"
    assert sth("inst", "logs", INSTANCE, "-o", "jsonl").stdout == line + b"no entry"


def test_stop_and_kill_say_what_became_of_it(sth: Sth) -> None:
    sth.server.answer(
        f"POST /api/v1/instance/{INSTANCE}/_stop", instance(INSTANCE, "completed"), status=202
    )
    done = sth("inst", "stop", INSTANCE, "--grace", "2s")
    assert done.stderr.decode() == f"Instance {INSTANCE} is completed\n"
    assert sth.server.received[-1].json() == {"timeout": 2000, "canCallKeepalive": False}


def test_publishing_takes_the_type_of_the_topic(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/topics", [{"topicName": "t", "contentType": "text/plain"}])
    sth.server.answer("POST /api/v1/topic/t", {})
    sth.server.answer("POST /api/v1/topic/new", {})
    sth("topic", "pub", "t", given=b"a\n")
    sth("topic", "pub", "new", given=b"{}\n")
    types = [each.headers["Content-Type"] for each in sth.server.received if each.body]
    assert types == ["text/plain", "application/x-ndjson"]


def test_what_cannot_be_undone_needs_yes_when_nobody_can_be_asked(sth: Sth) -> None:
    sth.server.answer("DELETE /api/v1/topics/t", {})
    done = sth("topic", "rm", "t")
    assert done.returncode == 2
    assert b"give --yes" in done.stderr
    assert not sth.server.received
    assert sth("topic", "rm", "t", "--yes").returncode == 0


def test_tokens_say_whether_they_still_let_anybody_in(sth: Sth) -> None:
    token = {"name": "", "expires": "", "revoked": ""}
    used, open_ended = {"uses": 1, "used": 1}, {"uses": 0, "used": 9}
    past = {"expires": "2026-01-01T00:00:00Z", "uses": 1, "used": 0}
    joins = [
        {**token, "id": name, **more}
        for name, more in (("a", used), ("b", open_ended), ("c", past))
    ]
    sth.server.answer("GET /api/v1/tokens/join", joins)
    sth.server.answer("GET /api/v1/tokens/api", [{**token, "id": "d"}])
    lines = sth("token", "ls").stdout.decode().splitlines()[1:]
    assert [line.split()[-1] for line in lines] == ["used", "valid", "expired", "valid"]


def test_waiting_for_a_topic_that_is_not_there_is_said(sth: Sth) -> None:
    sth.server.answer("GET /api/v1/topics", [{"topicName": "readings"}])
    sth.server.stream("GET /api/v1/topic/reading")
    assert b"there is no Topic reading yet" in sth("topic", "sub", "reading").stderr


def test_hub_shows_its_sandbox_a_line_a_part(sth: Sth) -> None:
    parts = {"a": {"state": "enforced", "reason": "", "fix": ""}}
    parts["b"] = {"state": "absent", "reason": "no kernel for it", "fix": "a newer one"}
    hub = {"id": "h1", "name": "edge", "status": "online", "sandbox": parts}
    sth.server.answer("GET /api/v1/hubs", [hub])
    sth.server.answer("GET /api/v1/hub/h1", hub)
    lines = sth("hub", "show", "edge").stdout.decode().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[-2:]] == [
        "enforced",
        "absent; no kernel for it; a newer one",
    ]


@pytest.mark.parametrize("words", [[], ["inst"], ["deploy"], ["token", "create"], ["topic", "sub"]])
def test_help_fits_a_terminal_of_80_columns(sth: Sth, words: list[str]) -> None:
    lines = sth(*words, "--help", COLUMNS="80").stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80


def test_join_token_is_the_whole_line_to_run(sth: Sth) -> None:
    made = {
        "id": "k",
        "token": "sthj1_x",
        "command": "sudo sth-agent join sthj1_x",
        "expires": "2026-01-01T00:00:00Z",
        "uses": 3,
        "warning": "only loopback",
    }
    sth.server.answer("POST /api/v1/tokens/join", made)
    done = sth("token", "create", "join", "--ttl", "1h", "--uses", "3", "--name", "pi")
    assert done.stdout == b"sudo sth-agent join sthj1_x\n"
    assert done.stderr.decode().startswith("warning: only loopback\n")
    assert "3 machines" in done.stderr.decode()
    assert sth.server.received[-1].json() == {"ttlSeconds": 3600, "uses": 3, "name": "pi"}


def test_api_token_alone_is_on_stdout(sth: Sth) -> None:
    made = {"id": "k", "token": "e.y.j", "scope": "read", "expires": "2026-01-01T00:00:00Z"}
    sth.server.answer("POST /api/v1/tokens/api", made)
    assert sth("token", "create", "api", "--scope", "read").stdout == b"e.y.j\n"
    assert sth("token", "create", "api", "--uses", "3").returncode == 2
    assert sth("token", "create", "join", "--scope", "read").returncode == 2


def test_tokens_are_listed_and_revoked_by_kind(sth: Sth) -> None:
    past = {"id": "old", "name": "pi", "expires": "2001-01-01T00:00:00Z"}
    sth.server.answer("GET /api/v1/tokens/join", [past])
    sth.server.answer("GET /api/v1/tokens/api", [{"id": "key", "name": "ci", "expires": ""}])
    sth.server.answer("DELETE /api/v1/tokens/api/key", {})
    lines = [line.split() for line in sth("token", "ls").stdout.decode().splitlines()]
    assert lines[1] == ["old", "join", "pi", "2001-01-01T00:00:00Z", "expired"]
    assert lines[2] == ["key", "api", "ci", "never", "valid"]
    assert sth("token", "revoke", "ci", "--yes").returncode == 0
    assert sth.server.received[-1].method == "DELETE"


def test_hub_is_revoked_by_name(sth: Sth) -> None:
    hub = {"id": "h1", "name": "edge", "space": "default", "status": "online", "lastSeen": ""}
    sth.server.answer("GET /api/v1/hubs", [hub])
    sth.server.answer("GET /api/v1/hub/h1", hub)
    sth.server.answer("POST /api/v1/hub/h1/_revoke", hub)
    listed = sth("hub", "ls").stdout.decode().splitlines()
    assert listed[1].split() == ["h1", "edge", "online", "-", "0", "now"]
    assert sth("hub", "revoke", "edge", "--yes").returncode == 0


def test_profiles_are_added_shown_and_used(sth: Sth) -> None:
    url = sth.server.url
    sth("profile", "add", "one", "--url", url, "--token-file", "-", given=b"e.y.j\n", STH_URL="")
    sth("profile", "add", "two", "--url", "http://two:2", "--space", "s", STH_URL="")
    assert sth("profile", "use", "two").returncode == 0
    shown = json.loads(sth("profile", "ls", "-o", "json").stdout)
    assert [(each["name"], each["current"]) for each in shown] == [("one", False), ("two", True)]
    everything = sth("profile", "show", "--profile", "one", STH_URL="")
    assert b"one.token" in everything.stdout
    assert b"e.y.j" not in everything.stdout
    sth.server.answer("GET /api/v1/hubs", [])
    assert sth("hub", "ls", "--profile", "one", STH_URL="").returncode == 0
    assert sth.server.received[-1].headers["Authorization"] == "Bearer e.y.j"


def test_token_file_that_others_can_read_is_warned_of(sth: Sth, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("e.y.j")
    token.chmod(0o644)
    sth.server.answer("GET /api/v1/hubs", [])
    done = sth("hub", "ls", "--token-file", str(token))
    assert done.returncode == 0
    assert done.stderr.decode().startswith("warning: others can read the token file")


def test_follower_ends_with_the_stream(sth: Sth, running: list["subprocess.Popen[bytes]"]) -> None:
    sth.server.answer("GET /api/v1/topics", [{"topicName": "t"}])
    sth.server.stream("GET /api/v1/topic/t", b"a\n", b"b\n")
    assert sth("topic", "sub", "t").stdout == b"a\nb\n"
    # And what was used last is remembered.
    assert sth("topic", "sub", "-").stdout == b"a\nb\n"
    wait_for("both were asked", lambda: len(sth.server.received) == 4)
