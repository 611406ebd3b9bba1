"""What a run does about spikes of its loss and gradient norm."""
