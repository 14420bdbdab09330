#!/usr/bin/python3
"""What code that broke out of QEMU would try: probe.py VM

Prints a line for each attempt, `did` or `denied`. VM is another one on this host.
"""
import ctypes, mmap, os, resource, signal, socket, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
other = sys.argv[1]
attempts = []


def attempt(name):
    def add(body):
        attempts.append((name, body))
        return body
    return add


def call(number, *arguments):
    """A system call by its number on x86-64."""
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "system call %d" % number)


@attempt("read the host's accounts")
def _(): open("/etc/passwd").read()

@attempt("list the VMs of the host")
def _(): os.listdir("/var/lib/martlet/vms/" + other)

@attempt("list what runs")
def _():
    if not [p for p in os.listdir("/proc") if p.isdigit() and p == "1"]: raise OSError("not there")

@attempt("open a socket of the network")
def _(): socket.socket(socket.AF_INET, socket.SOCK_STREAM)

@attempt("open a raw socket")
def _(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW)

@attempt("make a user namespace")
def _(): call(272, 0x10000000)

@attempt("make a user namespace with clone3")
def _():
    argument = (ctypes.c_uint64 * 11)(0x10000000, *[0] * 10)
    child = libc.syscall(435, ctypes.byref(argument), 88)
    if child < 0: raise OSError(ctypes.get_errno(), "clone3")
    if child == 0: os._exit(0)

@attempt("trace a process of its own user")
def _():
    child = os.fork()
    if child == 0: signal.pause()
    try:
        if libc.ptrace(16, child, 0, 0) < 0: raise OSError(ctypes.get_errno(), "ptrace")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

@attempt("use the kernel's keys")
def _(): call(248, b"user", b"martlet-probe", b"x", 1, ctypes.c_int(-2))

@attempt("watch the kernel with perf")
def _():
    attributes = (ctypes.c_uint32 * 32)(1, 128)
    call(298, ctypes.byref(attributes), 0, -1, -1, 0)

@attempt("write beside its own files")
def _(): open("/var/tmp/../martlet-probe", "w")

@attempt("write to the system's temporary folder")
def _():
    open("/tmp/martlet-probe", "w").close()
    # A private one is no way out.
    if not os.path.exists("/tmp/martlet-mark"): raise OSError("private")


for name, body in attempts:
    try:
        body()
        print(name + ": did", flush=True)
    except (OSError, ValueError) as error:
        print(name + ": denied", flush=True)

# Bounded, whatever the limit: 300 tasks, 2 GiB.
children = []
try:
    for _ in range(300):
        child = os.fork()
        if child == 0: signal.pause()
        children.append(child)
    print("start 300 processes: did", flush=True)
except OSError:
    print("start 300 processes: denied", flush=True)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
child = os.fork()
if child == 0:
    with mmap.mmap(-1, 2 << 30) as memory:
        for page in range(0, 2 << 30, 4096): memory[page] = 1
    os._exit(0)
_, status = os.waitpid(child, 0)
print("take 2 GiB of memory: " + ("did" if status == 0 else "denied"), flush=True)
