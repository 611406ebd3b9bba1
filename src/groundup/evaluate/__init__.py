"""What a trained model is worth: perplexity, the published benchmarks, and what it says."""
