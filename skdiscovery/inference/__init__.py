"""Reading texts with a trained model: features, traces, likelihood, and writing new ones."""
