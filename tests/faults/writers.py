"""One server process without its sockets: threads that send it one exchange after another, each as soon as it can.

    python -m tests.faults.writers THREADS SECONDS < (the form of an exchange, as one line of JSON)

AUTHSERVER_CONFIG names the configuration. It says `ready`, waits for another line, and then prints for how long each
request was under way, in seconds, as one line of JSON.
"""

import json
import sys
import threading
import time

import httpx

from authserver.app import create_app


def main() -> None:
    """Write for a while."""
    threads, seconds = int(sys.argv[1]), float(sys.argv[2])
    form = json.loads(sys.stdin.readline())
    transport = httpx.WSGITransport(create_app())
    waits: list[float] = []
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds

    def write() -> None:
        with httpx.Client(transport=transport, base_url="http://127.0.0.1") as client:
            while (begun := time.monotonic()) < until:
                answer = client.post("/oauth/token", data=form)
                assert answer.status_code == 200, answer.text
                waits.append(time.monotonic() - begun)

    writing = [threading.Thread(target=write) for _ in range(threads)]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    print(json.dumps(waits), flush=True)


if __name__ == "__main__":
    main()
