"""Training side: systems, networks, data, phantom, evaluation."""
