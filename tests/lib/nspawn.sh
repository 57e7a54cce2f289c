#!/bin/bash
# Boots throwaway Debian 13 machines with systemd under systemd-nspawn, for tests and for people.
#
# Owns: <state>/base/KIND-KEY/ (cached clean roots, never booted) and <state>/machines/NAME/
# {root/, console.log, supervisor, leader, cgroup, owner}. <state> is $AOS_NSPAWN_DIR, else
# target/nspawn of this checkout. Nothing outside it is written but one child of the unified
# cgroup hierarchy per running machine; mounts are made in a private mount namespace only.
# A machine has no network (its own, empty network namespace) and its own pid, mount, uts, ipc
# and cgroup namespaces. Where the unified hierarchy carries no controllers (cgroup v1 in
# charge), memory, cpu and task limits are silently not enforced: test those in a VM.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
state=${AOS_NSPAWN_DIR:-$repo/target/nspawn}
suite=trixie
boot_timeout_s=${AOS_NSPAWN_BOOT_TIMEOUT:-180}

# What every base has: Debian with systemd and the D-Bus daemon that every installed system has.
# `minimal` is without our dependencies: they wait, downloaded, in its apt cache, so that
# `apt install ./agentd_*.deb` can resolve them without a network.
packages_minimal=(systemd systemd-sysv dbus libpam-systemd apt)
packages_dependencies=(polkitd libnss-systemd python3 ca-certificates)
# Wait likewise, for the tests that install them.
packages_waiting=(crun runc qemu-system-x86)
packages_full=(procps strace sqlite3 less)

usage() {
    cat <<'USAGE'
tests/lib/nspawn.sh COMMAND   (as root)
  base [--fresh] [minimal|full]    make (or reuse) the cached clean root; prints its path
  create [--base KIND] [--owner PID] NAME
                                   copy a base to the machine NAME; prints the root's path
                                   (write into it before the boot; when PID is gone,
                                   the next `create` or `gc` destroys the machine)
  boot NAME [NSPAWN-OPTION...]     boot it and wait until systemd has started everything
                                   (e.g. --bind-ro=/host/dir:/guest/dir)
  exec NAME [-u USER] [-C DIR] [-E K=V] [--] CMD...
                                   run CMD as a transient service; stdin, stdout, stderr and
                                   the exit status pass through
  enter NAME CMD...                run CMD by nsenter only: also before there is a D-Bus daemon
  logs NAME                        the console and the journal, also of a machine that is off
  poweroff NAME                    orderly; then by force. The root stays
  destroy NAME                     stop it and delete it
  list                             machines and their state
  gc                               destroy machines whose owner is gone
  with [--base KIND] [--bind-ro=..] -- CMD...
                                   create, boot, run CMD here with AOS_MACHINE=NAME and
                                   AOS_MACHINE_ROOT set, destroy on every exit path
  shell [--base KIND] [NSPAWN-OPTION...]
                                   a root shell in a fresh machine, destroyed on exit
KIND: minimal (Debian, systemd, dbus) or full (default; with polkitd, libnss-systemd,
python3, procps, strace, sqlite3).
USAGE
}

die() {
    echo "nspawn.sh: $*" >&2
    exit 1
}

need_tools() {
    local missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
    command -v nsenter >/dev/null || missing+=(util-linux)
    if [ ${#missing[@]} -gt 0 ]; then
        "$here/apt-need" "${missing[@]}"
    fi
}

# --- bases -------------------------------------------------------------------------------

base_packages() {
    case $1 in
    minimal) printf '%s\n' "${packages_minimal[@]}" ;;
    full) printf '%s\n' "${packages_minimal[@]}" "${packages_dependencies[@]}" "${packages_full[@]}" ;;
    *) die "unknown base \"$1\": minimal or full" ;;
    esac
}

# apt's proxy and time-out settings of this machine, as mmdebstrap options.
apt_options() {
    apt-config dump | sed -n 's/^\(Acquire::https\?::[^ ]* ".*";\)$/--aptopt=\1/p'
}

build_base() {
    local kind=$1 into=$2 include options=()
    include=$(base_packages "$kind" | paste -sd,)
    mapfile -t options < <(apt_options)
    need_tools
    mkdir -p "$into.new"
    # An empty machine-id is filled at boot without making it a first boot, which would ask
    # questions on a console that is not there. The lists stay, so that apt in the machine resolves from what was downloaded here.
    "$here/debian-mirror" "$suite" | mmdebstrap --quiet --variant=minbase \
        --include="$include" "${options[@]}" \
        --aptopt='APT::Install-Recommends "false"' \
        --skip=cleanup/apt,cleanup/reproducible \
        --customize-hook="chroot \"\$1\" apt-get -qq --download-only -y -o APT::Install-Recommends=true install ${packages_dependencies[*]}" \
        --customize-hook="chroot \"\$1\" apt-get -qq --download-only -y install ${packages_waiting[*]}" \
        --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf' \
        --customize-hook=': > "$1"/etc/machine-id' \
        --customize-hook='echo aos-test > "$1"/etc/hostname' \
        --customize-hook='printf "127.0.0.1 localhost aos-test\n" > "$1"/etc/hosts' \
        "$suite" "$into.new" - >&2
    mv "$into.new" "$into"
}

cmd_base() {
    local fresh=
    if [ "${1:-}" = --fresh ]; then
        fresh=1
        shift
    fi
    local kind=${1:-full} key path
    key=$( (base_packages "$kind"; echo "${packages_dependencies[*]} ${packages_waiting[*]}"; declare -f build_base; "$here/debian-mirror" "$suite") | sha256sum | cut -c1-12)
    path=$state/base/$kind-$key
    mkdir -p "$state/base"
    (
        # One builder at a time; others wait and find it made.
        flock 9
        [ -z "$fresh" ] || rm -rf -- "$path"
        if [ ! -d "$path" ]; then
            rm -rf -- "$state/base/$kind-"*
            echo "nspawn.sh: making the clean Debian 13 root \"$kind\" (about 30 s)" >&2
            build_base "$kind" "$path"
        fi
    ) 9>"$state/base/lock"
    echo "$path"
}

# --- machines ----------------------------------------------------------------------------

machine_dir() {
    [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,60}$ ]] || die "bad machine name \"$1\""
    echo "$state/machines/$1"
}

existing_machine() {
    local dir
    dir=$(machine_dir "$1")
    [ -d "$dir/root" ] || die "no machine \"$1\" (nspawn.sh list)"
    echo "$dir"
}

cmd_create() {
    local kind=full owner=
    while [ $# -gt 1 ]; do
        case $1 in
        --base) kind=$2; shift 2 ;;
        --owner) owner=$2; shift 2 ;;
        *) die "create: unknown option \"$1\"" ;;
        esac
    done
    [ $# -eq 1 ] || die "create: needs a NAME"
    local dir base
    dir=$(machine_dir "$1")
    cmd_gc
    [ ! -e "$dir" ] || die "machine \"$1\" exists (nspawn.sh destroy $1)"
    base=$(cmd_base "$kind")
    mkdir -p "$dir"
    if [ -n "$owner" ]; then
        echo "$owner $(start_time "$owner")" >"$dir/owner"
    fi
    cp -a --reflink=auto -- "$base" "$dir/root"
    echo "$dir/root"
}

# The process's start in ticks: with the pid it names a process for good.
start_time() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

alive() {
    [ -n "$1" ] && [ -d "/proc/$1" ]
}

supervisor_of() {
    [ -f "$1/supervisor" ] || return 1
    local pid started
    read -r pid started <"$1/supervisor"
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

leader_of() {
    supervisor_of "$1" >/dev/null || return 1
    cat "$1/leader" 2>/dev/null
}

unified_cgroup() {
    findmnt -n -t cgroup2 -o TARGET | head -1
}

# Becomes the machine: joins its cgroup, leaves this machine's namespaces, runs systemd-nspawn.
become_machine() {
    local dir=$1 cgroup=$2
    shift 2
    echo $BASHPID >"$cgroup/cgroup.procs"
    # nspawn's own filter refuses Landlock, which the agents need: the machine gets none.
    export SYSTEMD_SECCOMP=0
    # Killing this process kills the pid namespace and everything in it.
    exec unshare -m -C -p -f --mount-proc --kill-child=KILL -- sh -euc '
        umount -l /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec systemd-nspawn "$@"' sh \
        --quiet --register=no --keep-unit --boot --directory="$dir/root" \
        --machine="$(basename "$dir")" --private-network --link-journal=no \
        --console=pipe --kill-signal=SIGRTMIN+3 "$@"
}

cmd_boot() {
    local dir cgroup name=$1
    dir=$(existing_machine "$name")
    shift
    need_tools
    supervisor_of "$dir" >/dev/null && die "machine \"$name\" is running"
    cgroup=$(unified_cgroup)
    [ -n "$cgroup" ] || die "no cgroup2 hierarchy is mounted here: systemd cannot run in a container"
    cgroup=$cgroup/aos-test-$name
    mkdir -p "$cgroup"
    echo "$cgroup" >"$dir/cgroup"
    rm -f "$dir/leader"
    become_machine "$dir" "$cgroup" "$@" </dev/null >>"$dir/console.log" 2>&1 9>&- &
    local supervisor=$!
    echo "$supervisor $(start_time "$supervisor")" >"$dir/supervisor"
    disown "$supervisor"
    if ! wait_for_boot "$dir" "$supervisor"; then
        echo "nspawn.sh: \"$name\" did not boot within $boot_timeout_s s; its console:" >&2
        tail -n 40 "$dir/console.log" >&2
        cmd_kill "$dir"
        exit 1
    fi
}

# Waits for the guest's systemd to say that all jobs are done; `degraded` is the caller's matter.
wait_for_boot() {
    local dir=$1 supervisor=$2 deadline=$((SECONDS + boot_timeout_s)) nspawn leader
    while ((SECONDS < deadline)); do
        alive "$supervisor" || return 1
        nspawn=$(children_of "$supervisor")
        leader=$(children_of "${nspawn:-none}")
        if [ -n "$leader" ] && [ "$(cat "/proc/$leader/comm" 2>/dev/null)" = systemd ]; then
            echo "$leader" >"$dir/leader"
            if [ -e "/proc/$leader/root/run/systemd/private" ]; then
                guest "$leader" timeout $((deadline - SECONDS)) \
                    systemctl is-system-running --wait >"$dir/boot-state" 2>&1 || true
                case $(tail -n1 "$dir/boot-state") in
                running | degraded) return 0 ;;
                esac
            fi
        fi
        sleep 0.1
    done
    return 1
}

children_of() {
    local line
    line=$(cat "/proc/$1/task/$1/children" 2>/dev/null || true)
    echo "${line%% *}"
}

# Runs a command in all namespaces of the guest's pid 1, as root, with a clean environment.
guest() {
    local leader=$1
    shift
    nsenter -t "$leader" -m -u -i -n -p -C -r -w -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 "TERM=${TERM:-dumb}" "$@"
}

running_leader() {
    local dir
    dir=$(existing_machine "$1")
    leader_of "$dir" || die "machine \"$1\" is not running"
}

cmd_exec() {
    local leader options=(--quiet --wait --collect --pipe --service-type=exec --expand-environment=no)
    leader=$(running_leader "$1")
    shift
    # pam and a working directory as a login has them; HOME follows the user.
    options+=(-E LANG=C.UTF-8 -E PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    while [ $# -gt 0 ]; do
        case $1 in
        -u) options+=(-p "User=$2"); shift 2 ;;
        -C) options+=(--working-directory="$2"); shift 2 ;;
        -E) options+=(-E "$2"); shift 2 ;;
        --) shift; break ;;
        *) break ;;
        esac
    done
    guest "$leader" systemd-run "${options[@]}" -- "$@"
}

cmd_enter() {
    local leader
    leader=$(running_leader "$1")
    shift
    guest "$leader" "$@"
}

cmd_logs() {
    local dir
    dir=$(existing_machine "$1")
    echo "== console of $1"
    tail -n 200 "$dir/console.log" 2>/dev/null || true
    echo "== journal of $1"
    if leader=$(leader_of "$dir"); then
        guest "$leader" journalctl --no-pager -b -o short-precise
    elif [ -d "$dir/root/var/log/journal" ]; then
        journalctl --no-pager -o short-precise -D "$dir/root/var/log/journal"
    else
        echo "(it was volatile and the machine is off)"
    fi
}

# Kills what is left of the machine and removes its cgroups.
cmd_kill() {
    local dir=$1 supervisor cgroup i
    if supervisor=$(supervisor_of "$dir"); then
        kill -KILL "$supervisor" 2>/dev/null || true
        for ((i = 0; i < 100; i++)); do
            alive "$supervisor" || break
            sleep 0.1
        done
    fi
    if [ -f "$dir/cgroup" ]; then
        cgroup=$(cat "$dir/cgroup")
        for ((i = 0; i < 50; i++)); do
            [ -d "$cgroup" ] || break
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
        [ ! -d "$cgroup" ] || die "cgroup $cgroup of \"$(basename "$dir")\" is still busy"
    fi
    rm -f "$dir/supervisor" "$dir/leader" "$dir/cgroup"
}

cmd_poweroff() {
    local dir supervisor leader deadline=$((SECONDS + 60))
    dir=$(existing_machine "$1")
    if supervisor=$(supervisor_of "$dir") && leader=$(leader_of "$dir"); then
        guest "$leader" systemctl poweroff 2>/dev/null || true
        while alive "$supervisor" && ((SECONDS < deadline)); do
            sleep 0.1
        done
    fi
    cmd_kill "$dir"
}

cmd_destroy() {
    local dir
    dir=$(machine_dir "$1")
    [ -d "$dir" ] || return 0
    cmd_kill "$dir"
    rm -rf --one-file-system -- "$dir"
}

each_machine() {
    find "$state/machines" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' 2>/dev/null | sort
}

cmd_list() {
    local name status
    for name in $(each_machine); do
        status=off
        supervisor_of "$state/machines/$name" >/dev/null && status=running
        printf '%-40s %s\n' "$name" "$status"
    done
}

cmd_gc() {
    local name owner started
    for name in $(each_machine); do
        [ -f "$state/machines/$name/owner" ] || continue
        read -r owner started <"$state/machines/$name/owner"
        [ "$(start_time "$owner")" = "$started" ] || cmd_destroy "$name"
    done
}

cmd_with() {
    local kind=full options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
        --base) kind=$2; shift 2 ;;
        *) options+=("$1"); shift ;;
        esac
    done
    [ "${1:-}" = -- ] || die "with: needs -- CMD"
    shift
    local name=with-$$
    trap 'end_of_with "'"$name"'"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    AOS_MACHINE_ROOT=$(cmd_create --base "$kind" --owner $$ "$name")
    export AOS_MACHINE=$name AOS_MACHINE_ROOT
    cmd_boot "$name" "${options[@]}"
    # In the background, so that a signal ends the wait at once and the trap cleans up.
    "$@" <&0 &
    with_child=$!
    wait "$with_child"
}

end_of_with() {
    if alive "${with_child:-}"; then
        kill -TERM "$with_child" 2>/dev/null || true
    fi
    cmd_destroy "$1"
}

cmd_shell() {
    local kind=full
    if [ "${1:-}" = --base ]; then
        kind=$2
        shift 2
    fi
    cmd_with --base "$kind" "$@" -- shell_in
}

shell_in() {
    local leader
    leader=$(running_leader "$AOS_MACHINE")
    echo "machine $AOS_MACHINE, root $AOS_MACHINE_ROOT; exit destroys it" >&2
    guest "$leader" systemd-run --quiet --wait --collect --pty --service-type=exec \
        --working-directory=/root -E HOME=/root -E "TERM=${TERM:-dumb}" -- bash -l
}

main() {
    local command=${1:-help}
    shift || true
    case $command in
    base | create | boot | exec | enter | logs | poweroff | destroy | list | gc | with | shell)
        [ "$(id -u)" = 0 ] || exec sudo -- "$0" "$command" "$@"
        "cmd_$command" "$@"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
}

main "$@"
