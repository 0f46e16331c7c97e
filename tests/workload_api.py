"""A SPIFFE Workload API on a socket of the test's own: gRPC as a SPIRE agent speaks it, SVIDs of a domain in files."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from spiffe._proto import workload_pb2, workload_pb2_grpc

from authserver.actors.workload_files import make_assertion


class WorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Answers `FetchJWTSVID` for `subject`; nobody has an identity while there is no `domain`."""

    def __init__(self, subject: str, domain: Path | None = None) -> None:
        self.subject, self.domain = subject, domain
        self.audiences: list[list[str]] = []

    def FetchJWTSVID(self, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        if metadata.get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the security header is missing")
        if self.domain is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        self.audiences.append(list(request.audience))
        svid = make_assertion(
            self.domain, self.subject, request.audience[0], timedelta(minutes=5), datetime.now(UTC)
        )
        answer = workload_pb2.JWTSVIDResponse()
        answer.svids.add(spiffe_id=self.subject, svid=svid)
        return answer


@contextmanager
def running_workload_api(api: WorkloadApi, folder: Path) -> Iterator[str]:
    """Serve it on a socket in `folder`; gives the address."""
    address = f"unix://{folder / 'agent.sock'}"
    server = grpc.server(ThreadPoolExecutor(2))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(api, server)
    server.add_insecure_port(address)
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()
