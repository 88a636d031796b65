# shellcheck shell=bash
# What the scripts share: saying what happens, and installing what is missing. Read with `source`, never run.
#
# Only the scripts install anything, and only from the distribution's own packages, PyPI, rustup's components and the crates that
# Cargo.lock names.

# Steps that could not be done, for the last lines.
left_out=()

say() {
    printf '\n== %s\n' "$*" >&2
}

# Notes something that this machine cannot do.
leave_out() {
    left_out+=("$*")
    printf 'left out: %s\n' "$*" >&2
}

# Runs a command as root, or fails where nobody can.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo "$@"
    elif command -v sudo >/dev/null && [ -t 0 ]; then
        sudo "$@"
    else
        return 1
    fi
}

# Installs Debian packages; names the command where it cannot.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        leave_out "installing $*: no apt-get here; install them with your own package manager"
        return 1
    fi
    if [ -z "${apt_updated:-}" ]; then
        as_root apt-get update -qq >&2 || true
        apt_updated=yes
    fi
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
        leave_out "installing $*: run \`sudo apt-get install $*\`"
        return 1
    fi
}

# Makes sure of what building and running builds takes.
need_tools() {
    local missing=()
    command -v bwrap >/dev/null || missing+=(bubblewrap)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v git >/dev/null || missing+=(git ca-certificates)
    if [ "${#missing[@]}" -gt 0 ]; then
        say "installing ${missing[*]}"
        apt_install "${missing[@]}" || true
    fi
    if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then
        # shellcheck disable=SC1091
        source "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        echo "no cargo here: install Rust with rustup, then run this again" >&2
        exit 1
    fi
    if ! command -v cc >/dev/null; then
        echo "no C compiler here, and none could be installed" >&2
        exit 1
    fi
}

# What changes the clock of one process, and what makes small disks.
need_fault_tools() {
    local missing=()
    find /usr/lib /usr/lib64 -name libfaketimeMT.so.1 2>/dev/null | grep -q . || missing+=(libfaketime)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    command -v mount >/dev/null || missing+=(mount)
    if [ "${#missing[@]}" -gt 0 ]; then
        apt_install "${missing[@]}" || true
    fi
}

# Where cargo puts what it builds.
target_folder() {
    printf '%s' "${CARGO_TARGET_DIR:-$PWD/target}"
}

# Downloads the source package $2 from the distribution's own archive into the folder $1, using nothing outside of it;
# prints where its upstream archive is, or fails. Several packages may share a folder, one after another.
debian_source() {
    command -v apt-get >/dev/null || return 1
    local lists=$1 package=$2 codename
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 1
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/parts" "$lists/download"
    # The system may list no sources. Our list repeats its entries for this release as sources, in this folder only.
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
        | awk -v suite="$codename" '$1 == "deb" || $1 == "deb-src" {
            for (i = 2; i <= NF; i++) if ($i == suite) { $1 = "deb-src"; print; break }
        }' | sort -u >"$lists/sources.list"
    find /etc/apt/sources.list.d -name '*.sources' -exec awk 'FNR == 1 { print "" } !/^#/' {} + 2>/dev/null \
        | awk -v suite="$codename" 'BEGIN { RS = ""; ORS = "\n\n" }
            $0 ~ "Suites:([^\n]* )?" suite "( |\n|$)" { sub(/Types:[^\n]*/, "Types: deb-src"); print }' >"$lists/parts/own.sources"
    local options=(
        -q -o "Dir::Etc::sourcelist=$lists/sources.list" -o "Dir::Etc::sourceparts=$lists/parts"
        -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o "APT::Sandbox::User="
    )
    if [ ! -e "$lists/updated" ]; then
        apt-get "${options[@]}" update >&2 || return 1
        touch "$lists/updated"
    fi
    (cd "$lists/download" && apt-get "${options[@]}" source --download-only "$package" >&2) || return 1
    local archive
    archive=$(find "$lists/download" -name "${package}_*.orig.tar.*" ! -name '*.asc' | head -n 1)
    [ -n "$archive" ] && printf '%s' "$archive"
}

# The mail server of the tests, in a place of its own below the build folder.
need_mail_server() {
    local place
    place="$(target_folder)/smtp"
    if "$place/bin/python" -c 'import aiosmtpd' 2>/dev/null; then
        export BARNRAISE_SMTP_PYTHON="$place/bin/python"
        return 0
    fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        apt_install python3 python3-venv python3-pip || return 0
    fi
    mkdir -p "$(dirname "$place")"
    if python3 -m venv "$place" >&2 && "$place/bin/python" -m pip install -q --disable-pip-version-check aiosmtpd >&2; then
        export BARNRAISE_SMTP_PYTHON="$place/bin/python"
    else
        leave_out "mail over SMTP: aiosmtpd could not be installed from PyPI"
    fi
}
