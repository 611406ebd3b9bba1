"""Several processes, by PyTorch's own means: torchrun, DDP, FSDP2 (`fully_shard`)."""
