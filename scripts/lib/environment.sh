# Sourced by the scripts beside it: finds what they need, installs what is missing, makes .venv.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit 1

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $1"; [ -n "${2:-}" ] && say "hint: $2"; exit 1; }

# need_packages PACKAGE...: as root on Debian installs them; otherwise prints the one line that would.
need_packages() {
    [ "$#" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing from Debian: $*"
        local quiet=(-o Dpkg::Use-Pty=0 -qq)
        apt-get "${quiet[@]}" update >/dev/null &&
            DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y --no-install-recommends "$@" >/dev/null
        return
    fi
    say "missing: $*"
    say "    sudo apt-get install -y $*"
    return 1
}

suitable_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The Python to build on: $PYTHON, or the first that is 3.11 or newer and can make environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3; do
        if suitable_python "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# make_environment EXTRA: .venv with this checkout installed, editable; again only when it must be.
make_environment() {
    local extra=$1 stamp wanted python
    wanted=$(cat setup.cfg pyproject.toml | sha256sum | cut -c1-16)
    stamp=.venv/installed-$extra
    if [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null &&
        { [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || [ "$(cat .venv/installed-dev 2>/dev/null)" = "$wanted" ]; }; then
        return
    fi
    python=$(find_python) || {
        need_packages python3 python3-venv || exit 1
        python=$(find_python) || die "no Python of 3.11 or newer that can make environments" \
            "install python3 and python3-venv, or set PYTHON"
    }
    say "making .venv with $python"
    .venv/bin/python -c '' 2>/dev/null || { rm -rf .venv && "$python" -m venv .venv; } || exit 1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" ||
        die "pip could not install sth-edge" "see its message above"
    printf '%s\n' "$wanted" >"$stamp"
}

# missing_commands COMMAND:PACKAGE...: the packages whose command is not there.
missing_commands() {
    local each
    for each in "$@"; do
        command -v "${each%%:*}" >/dev/null || printf '%s\n' "${each##*:}"
    done
}
