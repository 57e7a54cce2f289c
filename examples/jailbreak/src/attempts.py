"""The attempts and the neighbours. Each is a function that raises OSError when it is stopped."""

import ctypes
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess

WORKSPACE = os.environ.get("HOME", "/workspace")

# Not every kernel has every system call at the same number (linux: arch/*/entry/syscalls, asm-generic/unistd.h).
NUMBERS = {
    "x86_64": {
        "process_vm_readv": 310, "ptrace": 101, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "pivot_root": 155, "open_by_handle_at": 304, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "io_uring_setup": 425, "keyctl": 250, "syslog": 103, "fsopen": 430, "personality": 135,
        "memfd_create": 319, "init_module": 175,
    },
    "aarch64": {
        "process_vm_readv": 270, "ptrace": 117, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
        "pivot_root": 41, "open_by_handle_at": 265, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "io_uring_setup": 425, "keyctl": 219, "syslog": 116, "fsopen": 430, "personality": 92,
        "memfd_create": 279, "init_module": 105,
    },
}[platform.machine()]

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
ADDR_NO_RANDOMIZE = 0x0040000

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name, *arguments):
    """A system call by its number, so that no library stands between the attempt and the kernel."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read(path):
    def attempt():
        with open(path, "rb") as file:
            return f"read {len(file.read(64))} bytes"

    return attempt


def open_to_write(path):
    """Opens without truncating and writes nothing: harmless where it is allowed."""

    def attempt():
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))

    return attempt


def create(path):
    def attempt():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(path)

    return attempt


def through_link():
    link = os.path.join(WORKSPACE, "way-out")
    remove(link)
    os.symlink("/etc/shadow", link)
    try:
        return read(link)()
    finally:
        remove(link)


def hard_link():
    link = os.path.join(WORKSPACE, "hard-link")
    remove(link)
    os.link("/usr/bin/true", link)
    remove(link)


def device():
    path = os.path.join(WORKSPACE, "disk")
    remove(path)
    os.mknod(path, 0o600 | 0o060000, os.makedev(8, 0))
    remove(path)


def by_handle():
    handle = ctypes.create_string_buffer(struct.pack("IiQQ", 8, 1, 2, 0))
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    call("open_by_handle_at", root, handle, os.O_RDONLY)


def run(*command):
    def attempt():
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0:
            return
        if b"Permission denied" in done.stderr or b"Operation not permitted" in done.stderr:
            raise PermissionError(13, done.stderr.decode("utf-8", "replace").strip())
        raise RuntimeError(f"status {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()}")

    return attempt


def copied_program():
    path = os.path.join(WORKSPACE, "program")
    remove(path)
    try:
        # A program that may be executed, and so read, where it lies.
        shutil.copy("/usr/bin/true", path)
        os.chmod(path, 0o755)
        run(path)()
    finally:
        remove(path)


def loader_on_a_copy():
    path = os.path.join(WORKSPACE, "program")
    remove(path)
    try:
        shutil.copy("/usr/bin/true", path)
        os.chmod(path, 0o755)
        done = subprocess.run([loader(), path], capture_output=True, check=False)
        if done.returncode != 0:
            raise PermissionError(1, done.stderr.decode("utf-8", "replace").strip())
    finally:
        remove(path)


def loader():
    names = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
    return names[platform.machine()]


def loader_on_a_program():
    """A program that may not be executed, by way of the loader, which reads it."""
    done = subprocess.run([loader(), "/usr/bin/id"], capture_output=True, check=False)
    if done.returncode != 0:
        raise PermissionError(13, done.stderr.decode("utf-8", "replace").strip())


def memory_file():
    descriptor = os.memfd_create("program", 0)
    with open("/usr/bin/true", "rb") as program, os.fdopen(descriptor, "wb", closefd=False) as copy:
        shutil.copyfileobj(program, copy)
    child = os.fork()
    if child == 0:
        try:
            os.execve(descriptor, ["program"], {})
        except OSError as error:
            os._exit(error.errno)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, os.strerror(code))


def set_user_id():
    os.setuid(0)


def other_processes():
    """Everything in /proc that is neither this program nor what started it inside its own namespace."""
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    strangers = sorted(set(seen) - ancestors())
    if not strangers:
        raise PermissionError(1, "only this program's own processes are there")
    return f"sees processes {strangers[:5]}"


def ancestors():
    found, process = set(), os.getpid()
    while process:
        found.add(process)
        try:
            with open(f"/proc/{process}/stat", encoding="ascii") as file:
                process = int(file.read().rpartition(")")[2].split()[1])
        except FileNotFoundError:  # the first process of the namespace is hidden
            break
    return found


def signal_everybody():
    """Signal 0 asks whether a signal could be sent. Inside, only the agent's own processes are asked."""
    me = os.getpid()
    for process in range(2, 4096):
        if process in (me, os.getppid()):
            continue
        try:
            os.kill(process, 0)
            return f"could signal process {process}"
        except ProcessLookupError:
            continue
    raise ProcessLookupError(3, "no other process answers")


def trace_parent():
    call("ptrace", 0x4206, os.getppid(), 0, 0)  # PTRACE_SEIZE, which does not stop it; it ends with the tracer


def read_memory():
    target = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(target), 16)
    call("process_vm_readv", os.getppid(), vector, 1, vector, 1, 0)


def connect(host, port, kind=socket.SOCK_STREAM):
    def attempt():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as connection:
            connection.settimeout(5)
            connection.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                connection.send(b"x")

    return attempt


def resolve():
    try:
        socket.getaddrinfo("example.org", 443)
    except socket.gaierror as error:
        raise PermissionError(1, "no name is resolved") from error


def unix_socket(address):
    def attempt():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(address)

    return attempt


def open_socket(family, kind, protocol=0):
    def attempt():
        socket.socket(family, kind, protocol).close()

    return attempt


def listen(port):
    def attempt():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(1)

    return attempt


def mount():
    place = os.path.join(WORKSPACE, "mount").encode()
    os.makedirs(place, exist_ok=True)
    try:
        call("mount", b"none", place, b"tmpfs", 0, None)
        call("umount2", place, 0)
    finally:
        os.rmdir(place)


def kernel_log():
    buffer = ctypes.create_string_buffer(64)
    call("syslog", 3, buffer, 64)


def keyring():
    call("keyctl", 0, -3, 1)  # KEYCTL_GET_KEYRING_ID of the session keyring, made if it is missing


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


GONE = {"ENOENT", "EACCES"}
DENIED = {"EPERM", "EACCES"}
READ_ONLY = {"EROFS", "EACCES", "ENOENT"}
REFUSED = {"EPERM", "ENOSYS", "EACCES"}
NO_NETWORK = {"ENETUNREACH", "EACCES", "EPERM"}

ATTEMPTS = [
    ("files", [
        ("read the password hashes", read("/etc/shadow"), GONE),
        ("read a host file that is not granted", read("/etc/fstab"), GONE),
        ("list the host's /home", lambda: f"sees {os.listdir('/home')}", GONE),
        ("follow a link out of the workspace", through_link, GONE),
        ("reach the host through /proc/1/root", read("/proc/1/root/etc/shadow"), GONE),
        ("open a file by its handle", by_handle, DENIED),
        ("hard-link a host file into the workspace", hard_link, {"EXDEV", "EPERM", "EACCES"}),
        ("write a granted file that is for reading", create("/etc/systemd/jailbreak"), READ_ONLY),
        ("replace a system program", open_to_write("/usr/bin/true"), READ_ONLY),
        ("add a user", open_to_write("/etc/passwd"), READ_ONLY),
        ("make a disk device", device, DENIED),
        ("open a disk", open_to_write("/dev/vda"), GONE),
    ]),
    ("programs", [
        ("run a shell", run("/bin/sh", "-c", ":"), DENIED),
        ("run a program that is not granted", run("/usr/bin/id"), DENIED),
        ("run it by way of the loader", loader_on_a_program, DENIED),
        ("run a copied program", copied_program, DENIED),
        ("run the copy by way of the loader", loader_on_a_copy, DENIED),
        ("run a program from memory", memory_file, DENIED),
        ("become root", set_user_id, DENIED | {"EINVAL"}),  # EINVAL: inside there is no root
    ]),
    ("processes", [
        ("see other processes", other_processes, DENIED),
        ("signal other processes", signal_everybody, {"ESRCH", "EPERM"}),
        ("trace its parent", trace_parent, DENIED),
        ("read its parent's memory", read_memory, DENIED),
        ("make a user namespace", lambda: call("unshare", CLONE_NEWUSER), REFUSED),
        ("make a network namespace", lambda: call("unshare", CLONE_NEWNET), REFUSED),
    ]),
    ("network", [
        ("connect to the internet", connect("1.1.1.1", 443), NO_NETWORK),
        ("the same by IPv6", connect("2606:4700:4700::1111", 443), NO_NETWORK | {"EADDRNOTAVAIL"}),
        ("send a datagram", connect("1.1.1.1", 53, socket.SOCK_DGRAM), NO_NETWORK),
        ("ask a cloud for its secrets", connect("169.254.169.254", 80), NO_NETWORK),
        ("connect to the host's SSH", connect("127.0.0.1", 22), {"ECONNREFUSED", "EACCES"}),
        ("resolve a name", resolve, DENIED),
        ("listen on a port that is not granted", listen(8081), DENIED),
        ("open a raw socket", open_socket(socket.AF_INET, socket.SOCK_RAW, 1), DENIED),
        ("open a packet socket", open_socket(socket.AF_PACKET, socket.SOCK_RAW), REFUSED | {"EAFNOSUPPORT"}),
        ("open a virtual machine socket", open_socket(socket.AF_VSOCK, socket.SOCK_STREAM), REFUSED | {"EAFNOSUPPORT"}),
        ("talk to D-Bus", unix_socket("/run/dbus/system_bus_socket"), GONE),
        ("talk to systemd", unix_socket("/run/systemd/private"), GONE),
    ]),
    ("kernel", [
        ("mount a file system", mount, DENIED),
        ("the same by the new system calls", lambda: call("fsopen", b"tmpfs", 0), REFUSED),
        ("load a module", lambda: call("init_module", b"", 0, b""), REFUSED),
        ("load a BPF program", lambda: call("bpf", 0, b"\0" * 64, 64), REFUSED),
        ("profile the kernel", lambda: call("perf_event_open", b"\0" * 128, -1, 0, -1, 0), REFUSED),
        ("handle page faults", lambda: call("userfaultfd", 0), REFUSED),
        ("use io_uring", lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120)), REFUSED),
        ("use the kernel's keyrings", keyring, REFUSED),
        ("switch off address randomisation", lambda: call("personality", ADDR_NO_RANDOMIZE), REFUSED),
        ("read the kernel's log", kernel_log, REFUSED),
        ("change a kernel setting", open_to_write("/proc/sys/kernel/core_pattern"), READ_ONLY),
        ("leave its control group", open_to_write("/sys/fs/cgroup/cgroup.procs"), READ_ONLY),
    ]),
]


def own_files():
    path = os.path.join(WORKSPACE, "neighbour")
    with open(path, "w+", encoding="ascii") as file:
        file.write("kept")
        file.seek(0)
        if file.read() != "kept":
            raise RuntimeError("what was written is not what was read")
    remove(path)


def temporary_files():
    with open("/tmp/neighbour", "w", encoding="ascii") as file:
        file.write("x")
    remove("/tmp/neighbour")


def own_name():
    import pwd

    name = pwd.getpwuid(os.getuid()).pw_name
    if not name.startswith("aos-"):
        raise RuntimeError(f"it is called {name}")


def own_child():
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)


NEIGHBOURS = [
    ("read its own package", read(__file__)),
    ("write and read its workspace", own_files),
    ("write a temporary file", temporary_files),
    ("list a folder that is granted for reading", lambda: os.listdir("/etc/systemd") and None),
    ("run a program that is granted", run("/usr/bin/true")),
    ("listen on the port that is granted", listen(8080)),
    ("start and end a process of its own", own_child),
    ("know its own user's name", own_name),
]
