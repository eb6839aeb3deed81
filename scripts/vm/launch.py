"""Starts the guest of vmrun and its network, passes its output on, exits with its status.

Two processes: user-mode-linux, and a qemu without a machine that serves only as its user network
(libslirp). They are joined by a pair of datagram sockets. With --number there is one process: the guest has
a tap of the network that it was started in. The guest's first serial line carries the script's output, the
second its exit status.
"""

import argparse
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

RIG_FAILED, TIMED_OUT = 125, 124


def main():
    parser = argparse.ArgumentParser()
    for option in ("--cache", "--init", "--mem", "--out", "--number", "--verbose"):
        parser.add_argument(option, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("script")
    parser.add_argument("args", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(RIG_FAILED))  # unwinds through `stop`
    run = tempfile.mkdtemp(prefix="run.", dir=options.cache)
    try:
        return Guest(options, run).wait()
    finally:
        shutil.rmtree(run, ignore_errors=True)


class Guest:
    def __init__(self, options, run):
        self.log_path = run + "/log"
        self.log = open(self.log_path, "wb")
        self.deadline = time.monotonic() + options.seconds
        self.output, output = os.pipe()
        self.status, status = os.pipe()
        write_settings(options, run + "/conf")
        self.network = None
        if options.number:
            tap = f"transport=tap,ifname=tap{options.number},gro=1,mac=02:00:00:00:00:0{options.number}"
            self.kernel = self.start_kernel(options, run, tap, [output, status])
        else:
            ours, theirs = datagram_pair()
            self.network = self.start_network(ours)
            theirs_fd = theirs.fileno()
            self.kernel = self.start_kernel(options, run, f"transport=fd,fd={theirs_fd}", [output, status, theirs_fd])
            ours.close()
            theirs.close()
        for fd in (output, status):
            os.close(fd)

    def start_network(self, sock):
        command = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-nographic", "-monitor", "none", "-serial", "none",
                   "-netdev", "user,id=u,ipv6=off", "-netdev", f"dgram,id=d,local.type=fd,local.str={sock.fileno()}",
                   "-netdev", "hubport,id=h0,hubid=0,netdev=u", "-netdev", "hubport,id=h1,hubid=0,netdev=d"]
        capture = os.environ.get("VMRUN_PCAP")
        if capture:
            command += ["-object", f"filter-dump,id=f0,netdev=d,file={os.path.realpath(capture)}"]
        return subprocess.Popen(command, pass_fds=[sock.fileno()], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def start_kernel(self, options, run, network, fds):
        output, status = fds[:2]
        verbose = options.verbose == "1"
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
        environment = {"LD_PRELOAD": options.cache + "/xstate.so", "PATH": os.environ["PATH"], "HOME": run, "TMPDIR": shm}
        command = [options.cache + "/uml/usr/bin/linux.uml", "mem=" + with_unit(options.mem),
                   "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
                   "vec0:" + network, "con=null", "con0=null,fd:1", "ssl=null",
                   f"ssl0=null,fd:{output}", f"ssl1=null,fd:{status}", "umid=" + os.path.basename(run), "uml_dir=" + run,
                   "random.trust_cpu=on", "raid=noautodetect", f"VMCONF={run}/conf", "init=" + options.init]
        command += [] if verbose else ["quiet"]
        return subprocess.Popen(command, env=environment, pass_fds=fds, stdin=subprocess.DEVNULL,
                                stdout=None if verbose else self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self):
        status = RIG_FAILED
        try:
            status = self.relay()
        finally:
            self.stop(killed=status in (RIG_FAILED, TIMED_OUT))
        return status

    def relay(self):
        """Copies the guest's output until both serial lines end; the script's exit status."""
        lines, digits = {self.output, self.status}, b""
        while lines:
            left = self.deadline - time.monotonic()
            if left <= 0:
                print("vmrun: time is up", file=sys.stderr)
                return TIMED_OUT
            ready = select.select(list(lines), [], [], min(left, 1))[0]
            for fd in ready:
                data = os.read(fd, 65536)
                if not data:
                    lines.discard(fd)
                elif fd == self.output:
                    write_all(data)
                else:
                    digits += data
            if not ready and self.kernel.poll() is not None:
                break
        if digits.strip().isdigit():
            return int(digits)
        with open(self.log_path, errors="replace") as log:
            print("vmrun: the guest ended without a status; its console:\n" + log.read()[-4000:], file=sys.stderr)
        return RIG_FAILED

    def stop(self, killed):
        if self.kernel.poll() is None and not killed:
            try:
                self.kernel.wait(3)
            except subprocess.TimeoutExpired:
                pass
        if self.kernel.poll() is None:
            os.killpg(self.kernel.pid, signal.SIGKILL)
        self.kernel.wait()
        if self.network:
            self.network.terminate()
            self.network.wait()


def datagram_pair():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in pair:
        for force in (32, 33):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE: only root may
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, 4 << 20)
            except PermissionError:
                pass
        os.set_inheritable(sock.fileno(), True)
    return pair


def write_settings(options, path):
    """What `init` reads, as shell assignments."""
    modules = options.cache + "/uml/usr/lib/uml/modules"
    modules += "/" + os.listdir(modules)[0]
    settings = {"VM_SCRIPT": os.path.realpath(options.script), "VM_OUT": options.out, "VM_NUMBER": options.number, "VM_MODS": modules}
    with open(path, "w") as conf:
        for name, value in settings.items():
            conf.write(f"{name}={shlex.quote(value)}\n")
        conf.write("VM_ARGS=(" + " ".join(map(shlex.quote, options.args)) + ")\n")


def with_unit(mem):
    return mem + "M" if mem[-1].isdigit() else mem


def write_all(data):
    while data:
        data = data[os.write(1, data):]


if __name__ == "__main__":
    sys.exit(main())
