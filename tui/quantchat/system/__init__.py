"""The machine: GPUs (through NVML), processor, main memory, memory of a process, energy."""
