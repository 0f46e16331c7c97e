"""The benchmark: what an exchange costs, beside the machine's own limits and the peer, all in one run."""
