"""What several tests need: native workloads, a sampler outside the process, failpoints."""
