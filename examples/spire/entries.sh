#!/bin/sh
# Which workload has which SPIFFE ID. Run where the SPIRE server runs; the agents' client ids are registered with the
# same IDs at the authorization server (README.md).
set -eu

server=/opt/spire/bin/spire-server
node=spiffe://example.org/spire/agent/node

# All agents of the cluster, as parents of what runs on their nodes.
"$server" entry create -node -spiffeID "$node" \
    -selector k8s_psat:cluster:shopping \
    -selector k8s_psat:agent_ns:spire \
    -selector k8s_psat:agent_sa:spire-agent

for agent in basket-helper price-scout; do
    "$server" entry create -parentID "$node" -spiffeID "spiffe://example.org/agent/$agent" \
        -selector k8s:ns:agents \
        -selector "k8s:sa:$agent" \
        -jwtSVIDTTL 300
done
