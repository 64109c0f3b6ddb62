"""gRPC health v1 under every name that gateways, charts and the conformance suite ask for."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.conformance.case import Broken, Check, NotAsked, Pack
from picker.conformance.epp import Epp

PACK: Pack[Epp] = Pack("health")
NAMES = {
    "": "the server as a whole, as kubelets ask",
    "liveness": "llm-d-router's liveness probe",
    "readiness": "llm-d-router's readiness probe, and its chart with several replicas",
    "envoy.service.ext_proc.v3.ExternalProcessor": "the service by its own name",
    "inference-extension": "lwepp, the conformance suite's manifests, the chart with one replica",
}


def _serving(name: str) -> Check[Epp]:
    async def check(epp: Epp) -> None:
        if epp.health is None:
            raise NotAsked("no health port was given")
        ask = health_pb2_grpc.HealthStub(epp.health).Check
        try:
            answer = await ask(health_pb2.HealthCheckRequest(service=name), timeout=epp.patience_s)
        except grpc.aio.AioRpcError as error:
            raise Broken(f"{error.code().name}: {(error.details() or '')[:200]}") from None
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Broken(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    return check


for _name, _who in NAMES.items():
    PACK.add(
        f"health-{_name.rpartition('.')[2].lower() or 'unnamed'}",
        f"A ready EPP says SERVING to {_name or 'the empty name'}: {_who}.",
        "GIE: health checks",
        _serving(_name),
    )
