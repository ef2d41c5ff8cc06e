"""What a program cannot do inside, as root's and as an ordinary user's Instance.

Where it is harmless, the same attempt is made outside to show that it would succeed there.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sandbox.spawned import Agent, Spawner, make_package, run_inside

# What an Instance may see of the host besides /usr: the interpreter and the modules it runs.
VISIBLE = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__))

ATTEMPT = """
def attempt(call, *arguments):
    try:
        call(*arguments)
        return "done"
    except OSError as error:
        import errno
        return errno.errorcode[error.errno]
"""


def test_isolation_identity(agent: Agent) -> None:
    status = run_inside(
        agent,
        """
import os
result = {
    "user": os.getuid(), "group": os.getgid(), "groups": os.getgroups(), "pid": os.getpid(),
    "status": open("/proc/self/status").read(),
}
""",
    )
    assert status["user"] != 0
    assert status["group"] != 0
    assert set(status["groups"]) <= {status["group"], 65534}
    assert status["pid"] == 1
    fields = dict(line.split(":\t", 1) for line in status["status"].splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_isolation_sees_only_its_own_root(agent: Agent) -> None:
    found = run_inside(
        agent,
        """
import os
result = {
    "root": {name: os.listdir("/" + name) for name in os.listdir("/")
             if os.path.isdir("/" + name)},
    "etc": sorted(os.listdir("/etc")),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:7],
    "sequence": sorted(os.listdir("/sequence")),
    "environment": dict(os.environ), "host": os.uname().nodename,
}
""",
    )
    assert {"usr", "proc", "dev", "etc", "tmp", "data", "sequence"} <= set(found["root"])
    for name in {"sys", "home", "boot", "mnt", "run", "var", "root"} & set(found["root"]):
        # A folder on the way to the interpreter or to our own modules, and nothing else in it.
        (only,) = found["root"][name]
        assert any(place.is_relative_to(f"/{name}/{only}") for place in VISIBLE)
    assert "shadow" not in found["etc"]
    assert found["processes"] == ["1"]
    assert found["descriptors"] == [0, 1, 2, 3, 4, 5, 6]
    assert found["sequence"] == ["main.py", "package.json"]
    assert found["host"].startswith("sth-")
    assert set(found["environment"]) == {
        *("PATH", "LANG", "HOME", "TMPDIR", "SEQUENCE_PATH", "INSTANCE_ID")
    }


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "/usr/x",
        "/etc/passwd",
        "/sequence/main.py",
        "/dev/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj",
    ],
)
def test_isolation_refuses_to_open_for_writing(agent: Agent, path: str) -> None:
    code = f"{ATTEMPT}\nimport os\nresult = attempt(os.open, {path!r}, os.O_WRONLY | os.O_CREAT)"
    assert run_inside(agent, code) in ("EROFS", "EACCES", "EPERM", "ENOENT")


def test_isolation_can_write_where_it_should(agent: Agent) -> None:
    done = run_inside(
        agent,
        """
import os, tempfile
result = []
for folder in ("/tmp", "/data", "/dev/shm"):
    with open(folder + "/file", "w") as file:
        result.append(file.write("text"))
with tempfile.NamedTemporaryFile() as file:
    result.append(file.name.startswith("/tmp/"))
with open("/dev/null", "w") as file:
    result.append(file.write("x"))
os.mkfifo("/tmp/fifo")
result.append(len(open("/dev/urandom", "rb").read(8)))
""",
    )
    assert done == [4, 4, 4, True, 1, 8]


def test_isolation_standard_streams_can_be_opened_by_name(agent: Agent) -> None:
    code = """
import subprocess
result = subprocess.run(["sh", "-c", "echo text > /dev/stderr"]).returncode
"""
    assert run_inside(agent, code) == 0


SYSTEM_CALLS = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    value = getattr(libc, name)(*arguments)
    return "done" if value >= 0 else errno.errorcode[ctypes.get_errno()]
"""


@pytest.mark.parametrize(
    ("attempt", "verdict"),
    [
        ('call("unshare", 0x10000000)', "EPERM"),
        ('call("unshare", 0x40000000)', "EPERM"),
        ('call("setns", 0, 0)', "EPERM"),
        ('call("mount", b"none", b"/tmp", b"tmpfs", 0, None)', "EPERM"),
        ('call("umount2", b"/tmp", 0)', "EPERM"),
        ('call("chroot", b"/tmp")', "EPERM"),
        ('call("ptrace", 0, 0, 0, 0)', "EPERM"),
        ('call("personality", 0x0400000)', "EPERM"),
        ('call("personality", 0xffffffff)', "done"),
        ('call("sethostname", b"x", 1)', "EPERM"),
        ('call("ioctl", 0, 0x5412, b"x")', "EPERM"),
        ('call("syscall", 425, 1, 0)', "EPERM"),
        ('call("syscall", 435, 0, 0)', "ENOSYS"),
        ('call("syscall", 470, 0, 0)', "ENOSYS"),
        ('call("mknod", b"/tmp/n", 0o020666, 0x103)', "EPERM"),
        ('call("mknod", b"/tmp/f", 0o010666, 0)', "done"),
        ('call("socket", 1, 1, 0)', "done"),
        ('call("socket", 2, 1, 0)', "done"),
        ('call("socket", 10, 2, 0)', "done"),
        ('call("socket", 16, 3, 0)', "done"),
        ('call("socket", 16, 3, 9)', "EPROTONOSUPPORT"),
        ('call("socket", 2, 3, 1)', "EPERM"),
        ('call("socket", 2, 1, 132)', "EPROTONOSUPPORT"),
        ('call("socket", 17, 3, 0)', "EAFNOSUPPORT"),
        ('call("socket", 38, 5, 0)', "EAFNOSUPPORT"),
        ('call("socket", 40, 1, 0)', "EAFNOSUPPORT"),
    ],
)
def test_isolation_system_calls(agent: Agent, attempt: str, verdict: str) -> None:
    assert run_inside(agent, f"{SYSTEM_CALLS}\nresult = {attempt}") == verdict


def test_isolation_control_a_process_outside_may_do_these() -> None:
    """Without the filter: a personality, a user namespace, an io_uring call that is understood."""
    code = (
        f"{SYSTEM_CALLS}\n"
        'print(call("personality", 0xffffffff), call("personality", 0x0400000),'
        ' call("unshare", 0x10000000), call("syscall", 435, 0, 0))'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["done", "done", "done", "EINVAL"]


def test_isolation_cannot_connect_to_this_machine(agent: Agent) -> None:
    """Not by loopback and not by an abstract socket; both can be reached from here."""
    name = f"\0sth-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(name)
        abstract.listen()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(name)
        code = f"""{ATTEMPT}
import socket
result = [
    attempt(socket.create_connection, ("127.0.0.1", {port})),
    attempt(socket.socket(socket.AF_UNIX).connect, {name!r}),
]
"""
        assert run_inside(agent, code) == ["ENETUNREACH", "ECONNREFUSED"]
        code = code.replace("result = [", "result = [")
        looped = run_inside(agent, code, network="loopback")
        assert looped == ["ECONNREFUSED", "ECONNREFUSED"]


def test_isolation_loopback_serves_itself(agent: Agent) -> None:
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        peer.sendall(b"hello")
        result = client.recv(5).decode()
"""
    assert run_inside(agent, code, network="loopback") == "hello"


def test_isolation_names_resolve_without_a_raw_socket(agent: Agent) -> None:
    code = 'import socket\nresult = socket.getaddrinfo("localhost", 80)[0][4][0]'
    assert run_inside(agent, code, network="loopback") in ("127.0.0.1", "::1")


def test_isolation_instances_have_users_of_their_own(shared_spawner: Spawner) -> None:
    """On the host, as far as the kernel of the host counts users."""
    agent = shared_spawner.agent()
    sha256 = agent.unpack(make_package({"main.py": "def run(context, input):\n    pass\n"}))
    users = []
    for started in (agent.start(sha256), agent.start(sha256)):
        status = Path(f"/proc/{started.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("Uid:"))
        users.append({int(each) for each in line.split()[1:]})
    assert all(0 not in each for each in users)
    if not shared_spawner.ordinary:
        assert not users[0] & users[1]
        assert min(users[0]) >= 0x53540000


def test_isolation_standard_library_works_inside(agent: Agent) -> None:
    code = """
import ctypes.util, sqlite3, ssl, zoneinfo, multiprocessing, concurrent.futures, subprocess
import encodings.idna, decimal
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    total = sum(pool.map(len, ["ab", "c"]))
result = [
    total,
    subprocess.run(["/bin/echo", "x"], capture_output=True, text=True).stdout,
    "münchen".encode("idna").decode(),
    sqlite3.connect("/data/x.db").execute("select 1").fetchone()[0],
    len(ssl.create_default_context().get_ca_certs()) >= 0,
]
"""
    assert run_inside(agent, code) == [3, "x\n", "xn--mnchen-3ya", 1, True]


@pytest.mark.parametrize("isolation", ["zygote", "exec"])
def test_isolation_keeps_no_trace_of_the_agent(
    shared_spawner: Spawner, agent: Agent, isolation: str
) -> None:
    """Neither its directory's socket nor other Instances can be reached or known of."""
    code = f"""
import gc, os
result = {{
    "socket": os.path.exists({str(shared_spawner.directory / "spawner.sock")!r}),
    "instances": sum(
        len(each._instances) for each in gc.get_objects() if type(each).__name__ == "Instances"
    ),
}}
"""
    found = run_inside(agent, code, isolation=isolation)
    assert found == {"socket": False, "instances": 0}
