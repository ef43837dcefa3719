"""What several evaluations share: matching with true features, other readings of an SAE."""
