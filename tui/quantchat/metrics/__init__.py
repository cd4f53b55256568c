"""What is measured: latency, throughput, memory, the machine. Nothing here starts a process."""
