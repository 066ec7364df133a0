"""The demo web service: says who it is, counts, and burns CPU when asked to.

    /            "shop_web.3 on n2 (version 1.0)"; with ?format=json all it knows about itself
    /burn?ms=N   N milliseconds of CPU time in this replica (at most 60,000)
    /wait?ms=N   the same without using the CPU
    /metrics     Prometheus exposition
    /healthz     ok
    /env         the environment
    /crash?code=N   ends the process with that exit code

Rules: standard library, one file, few imports (it starts in about 20 ms). Answers on port 8080, PORT changes it. SIGTERM
lets running requests end, for 5 seconds at most.
"""

import os
import signal
import socket
import socketserver
import threading
import time
from urllib.parse import parse_qs, urlsplit

HOSTNAME = socket.gethostname()
REPLICA = os.environ.get("SHOAL_REPLICA") or HOSTNAME
NODE = os.environ.get("SHOAL_NODE", "")
MS_MAX = 60_000
DRAIN_S = 5.0
HEADER_LINES_MAX = 100
BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
PATHS = ("/", "/burn", "/wait", "/metrics", "/healthz", "/env", "/crash")


def read_version():
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "VERSION")) as file:
            return file.read().strip()
    except OSError:
        return "dev"


VERSION = read_version()


class Counts:
    """What /metrics tells; every change under one lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = {}
        self.running = 0
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def begin(self):
        with self.lock:
            self.running += 1

    def end(self, path, status, took_s):
        known = path if path in PATHS else "other"
        place = sum(1 for bound in BUCKETS_S if took_s > bound)
        with self.lock:
            self.running -= 1
            self.requests[known, status] = self.requests.get((known, status), 0) + 1
            self.buckets[place] += 1
            self.seconds += took_s

    def total(self):
        with self.lock:
            return sum(self.requests.values())


COUNTS = Counts()
STARTED_S = time.time()


def home(query):
    if query.get("format") != ["json"]:
        return 200, f"{REPLICA}{' on ' + NODE if NODE else ''} (version {VERSION})\n"
    import json

    facts = {"replica": REPLICA, "hostname": HOSTNAME, "node": NODE, "version": VERSION, "requests": COUNTS.total()}
    return 200, json.dumps(facts) + "\n"


def burn(query):
    want_s = milliseconds(query) / 1000
    begin = time.thread_time()
    number = 1
    while time.thread_time() - begin < want_s:
        for _ in range(2000):
            number = (number * 48271) % 2147483647
    return 200, f"{REPLICA} burned {want_s * 1000:.0f} ms\n"


def wait(query):
    want_s = milliseconds(query) / 1000
    time.sleep(want_s)
    return 200, f"{REPLICA} waited {want_s * 1000:.0f} ms\n"


def health(query):
    return 200, "ok\n"


def environment(query):
    return 200, "".join(f"{name}={value}\n" for name, value in sorted(os.environ.items()))


def crash(query):
    try:
        code = int(query.get("code", ["1"])[0]) & 0xFF
    except ValueError:
        return 400, "code is a number from 0 to 255\n"
    print(f"crash asked for: ending with code {code}", flush=True)
    os._exit(code)


def metrics(query):
    with COUNTS.lock:
        requests, running = dict(COUNTS.requests), COUNTS.running
        buckets, seconds = list(COUNTS.buckets), COUNTS.seconds
    labels = f'replica="{REPLICA}",node="{NODE}",version="{VERSION}"'
    out = ["# TYPE web_info gauge", f"web_info{{{labels}}} 1", "# TYPE web_requests_total counter"]
    for (path, status), count in sorted(requests.items()):
        out.append(f'web_requests_total{{path="{path}",status="{status}"}} {count}')
    out += ["# TYPE web_requests_running gauge", f"web_requests_running {running}"]
    out.append("# TYPE web_request_seconds histogram")
    so_far = 0
    for bound, count in zip((*BUCKETS_S, "+Inf"), buckets, strict=True):
        so_far += count
        out.append(f'web_request_seconds_bucket{{le="{bound}"}} {so_far}')
    out += [f"web_request_seconds_sum {seconds:.6f}", f"web_request_seconds_count {so_far}"]
    out += ["# TYPE process_cpu_seconds_total counter", f"process_cpu_seconds_total {time.process_time():.3f}"]
    out += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {resident_bytes()}"]
    out += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {STARTED_S:.3f}"]
    return 200, "\n".join(out) + "\n"


ROUTES = dict(zip(PATHS, (home, burn, wait, metrics, health, environment, crash), strict=True))


def milliseconds(query):
    try:
        return max(0.0, min(float(query.get("ms", ["100"])[0]), MS_MAX))
    except ValueError:
        return 0.0


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Handler(socketserver.StreamRequestHandler):
    """HTTP/1.1 as far as it is needed: one request line, headers skipped, connections kept."""

    timeout = 75
    disable_nagle_algorithm = True

    def handle(self):
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            pass

    def one(self):
        words = self.rfile.readline(8192).decode("latin-1").split()
        if len(words) != 3:
            return False
        method, target, protocol = words
        length, keep = 0, protocol == "HTTP/1.1"
        for _ in range(HEADER_LINES_MAX):
            name, _, value = self.rfile.readline(8192).decode("latin-1").partition(":")
            if not name.strip():
                break
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "connection":
                keep = value.strip().lower() == "keep-alive" or (keep and value.strip().lower() != "close")
        if length:
            self.rfile.read(min(length, 1 << 20))
        self.answer(method, target, keep)
        return keep and length <= 1 << 20

    def answer(self, method, target, keep):
        parts = urlsplit(target)
        route = ROUTES.get(parts.path)
        COUNTS.begin()
        begin, status = time.monotonic(), 500
        try:
            status, text = route(parse_qs(parts.query)) if route else (404, f"no {parts.path} here\n")
        finally:
            COUNTS.end(parts.path, status, time.monotonic() - begin)
        body = text.encode()
        head = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nX-Replica: {REPLICA}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.wfile.write(head.encode() + (b"" if method == "HEAD" else body))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 too
        super().server_bind()


def main():
    port = int(os.environ.get("PORT", "8080"))
    with Server(("", port), Handler) as server:
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
        signal.signal(signal.SIGINT, lambda number, frame: stopping.set())
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
        print(f"{REPLICA} version {VERSION} answers on port {server.server_address[1]}", flush=True)
        stopping.wait()
        server.socket.close()
        end = time.monotonic() + DRAIN_S
        while COUNTS.running and time.monotonic() < end:
            time.sleep(0.02)
        print(f"{REPLICA} stops after {COUNTS.total()} requests", flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
