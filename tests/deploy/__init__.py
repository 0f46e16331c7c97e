"""What deploy/ ships, as far as it can be run without a container engine or a cluster."""
